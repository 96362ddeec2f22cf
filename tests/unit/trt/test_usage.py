"""Our code uses what every flavor has, or asks first; and the check that says so can fail."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.trt.builder import BuildRequest, build_plan
from riformer_deploy.trt.engine import _DTYPES, Engine
from riformer_deploy.trt.validity import validity
from tests.conformance.checking import CAPABILITIES, problems_of, sources_of, uses_in
from tests.fakes.api import FLAVORS, SEVERITIES, api_of
from tests.fakes.gpu import FakeDevice, FakeGpu
from tests.fakes.tensorrt import bindings
from tests.fakes.trt_building import write_graph


@pytest.fixture(scope="session")
def sources(repository: Path) -> dict[str, str]:
    """The package that touches TensorRT."""
    return sources_of(repository / "riformer_deploy" / "trt")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each flavor, in which mypy keeps its cache."""
    return {flavor: tmp_path_factory.mktemp(flavor) for flavor in FLAVORS}


@pytest.mark.untraced
@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_member_that_is_used_is_there_and_every_call_is_taken(
    flavor: str, sources: dict[str, str], work: dict[str, Path]
) -> None:
    assert problems_of(flavor, sources, work[flavor]) == []


def test_no_other_module_touches_tensorrt(repository: Path) -> None:
    package = repository / "riformer_deploy"
    others = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    ours = re.compile(r"\btrt\.module\b|\btensorrt_api\b")
    touching = {path.name for path, text in others.items() if ours.search(text)}
    assert touching == {"bindings.py", "builder.py", "engine.py", "validity.py"}
    assert not any("getattr(" in others[package / "trt" / name] for name in touching)  # mypy cannot follow it


def test_each_capability_is_some_flavor_s_and_not_every_one_s() -> None:
    has = {
        name: {flavor for flavor in FLAVORS if getattr(bindings(flavor, FakeGpu()), name)}
        for name in CAPABILITIES
    }
    assert len(has) == 5
    assert all(flavors and flavors != set(FLAVORS) for flavors in has.values())


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_is_used_at_run_time_is_what_mypy_sees_used(
    flavor: str, sources: dict[str, str], work: dict[str, Path], tmp_path: Path
) -> None:
    gpu = FakeGpu()
    trt = bindings(flavor, gpu)
    settings = BuildSettings(
        workspace_bytes=1,
        optimization_level=1,
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
        compute_capabilities=("8.9",) if "rtx" in flavor else (),
    )
    request = BuildRequest(
        onnx=write_graph(tmp_path / "model.onnx"),
        input_name="images",
        sample_shape=(3, 4, 4),
        profiles=(
            BatchProfile(minimum=1, optimum=1, maximum=1),
            BatchProfile(minimum=2, optimum=2, maximum=2),
        ),
        settings=settings,
        timing_cache=b"",
    )
    plan = build_plan(trt, request, lambda _: None, lambda *_: None).plan
    engine, device = Engine(trt, plan, what="engine", cuda_graphs=True, host_code=True), FakeDevice(gpu)
    context = engine.context()
    shapes = context.prepare("images", (2, 3, 4, 4), profile=1, stream=device.stream)
    buffers = [device.allocate(4 * int(np.prod(shape))) for shape in shapes.values()]
    for name, buffer in zip(shapes, buffers, strict=True):
        context.bind(name, buffer.address)
    context.execute(device.stream)
    assert context.capturable(device.stream) == ("rtx" in flavor)
    device.synchronize()
    assert (engine.num_layers, engine.memory_bytes) == (7, 4096)
    assert '"Layers"' in engine.layers_json()
    assert (engine.runtime_cache() is None) == ("rtx" not in flavor)
    context.close()
    engine.close()
    for buffer in buffers:
        device.free(buffer)
    device.close()
    assert (validity(trt, plan) is None) == ("rtx" not in flavor)
    gpu.assert_at_rest()
    assert len(trt.module.used) >= 40
    assert trt.module.used <= uses_in(flavor, sources, work[flavor])


def test_rtx_names_what_is_wrong_with_a_plan() -> None:
    gpu = FakeGpu()
    rtx = next(flavor for flavor in FLAVORS if "rtx" in flavor)
    found = validity(bindings(rtx, gpu), b"no plan")
    assert found is not None
    assert found[0] == "INVALID"
    assert sorted(found[1]) == ["MALFORMED_ENGINE", "VERSION_MISMATCH"]
    assert validity(bindings(rtx, gpu, has_driver=False), b"no plan") is None


@pytest.mark.parametrize("flavor", FLAVORS)
def test_names_that_are_compared_as_text_exist(flavor: str) -> None:
    api = api_of(flavor)
    assert _DTYPES.keys() <= set(api.enums["DataType"])
    assert {"ERROR", "INTERNAL_ERROR", "INFO", "VERBOSE"} <= set(SEVERITIES)
    if "ComputeCapability" in api.enums:
        assert "SM89" in api.enums["ComputeCapability"]
        assert {"VALID", "SUBOPTIMAL", "INVALID"} == set(api.enums["EngineValidity"])


GUARD = """        if not self._trt.has_runtime_cache:
            return None, None
"""
ALL = "10.16 11.4 1.7"

MUTATIONS = [
    ("builder.py", "flags.TF32", "flags.FP16", "11.4 1.7", 'type[BuilderFlag]" has no attribute "FP16"'),
    (
        "engine.py",
        "device_memory_size_v2",
        "device_memory_size",
        "11.4 1.7",
        'ICudaEngine" has no attribute "device_memory_size"',
    ),
    (
        "engine.py",
        "self._engine.num_layers",
        "self._engine.has_implicit_batch_dimension",
        "11.4 1.7",
        'ICudaEngine" has no attribute "has_implicit_batch_dimension"',
    ),
    ("builder.py", "Flag.STRONGLY_TYPED", "Flag.EXPLICIT_BATCH", "11.4 1.7", 'no attribute "EXPLICIT_BATCH"'),
    (
        "builder.py",
        "parser.num_errors",
        "parser.findings",
        ALL,
        'OnnxParser" has no attribute "findings"',
    ),
    ("builder.py", "config.builder_optimization_level =", "config.dla =", ALL, 'no attribute "dla"'),
    (
        "builder.py",
        "layer.get_output(0).dtype",
        "layer.precision",
        "11.4 1.7",
        'no attribute "precision"',
    ),
    ("builder.py", "error.desc()", "error.text()", ALL, 'ParserError" has no attribute "text"'),
    (
        "engine.py",
        GUARD,
        "",
        "10.16 11.4",
        'IRuntimeConfig" has no attribute "dynamic_shapes_kernel_specialization_strategy"',
    ),
    (
        "builder.py",
        "    if not trt.has_compute_capabilities:\n        raise",
        "    if trt.has_compute_capabilities:\n        raise",
        "10.16 11.4",
        'IBuilderConfig" has no attribute "num_compute_capabilities"',
    ),
    (
        "validity.py",
        "    if not trt.has_validity_check:\n        return None\n",
        "",
        "10.16 11.4",
        'Runtime" has no attribute "get_engine_validity"',
    ),
    (
        "builder.py",
        "ignore_mismatch=False",
        "ignore=False",
        ALL,
        'Unexpected keyword argument "ignore" for "set_timing_cache" of "IBuilderConfig"',
    ),
    (
        "engine.py",
        "execute_async_v3(stream)",
        "execute_async_v3(stream, 0)",
        ALL,
        'Too many arguments for "execute_async_v3" of "IExecutionContext"',
    ),
    (
        "engine.py",
        "get_tensor_name(index)",
        "get_tensor_name()",
        ALL,
        'Missing positional argument "index" in call to "get_tensor_name" of "ICudaEngine"',
    ),
    (
        "engine.py",
        "set_tensor_address(name, address)",
        "set_tensor_address(address, name)",
        ALL,
        'Argument 1 to "set_tensor_address" of "IExecutionContext" has incompatible type "int"',
    ),
    (
        "builder.py",
        "phase_name: str, step: int)",
        "step: int)",
        ALL,
        'Signature of "step_complete" incompatible with supertype "tensorrt_api.IProgressMonitor"',
    ),
    (
        "builder.py",
        "def phase_finish(self",
        "def phase_end(self",
        ALL,
        'Cannot instantiate abstract class "Monitor" with abstract attribute "phase_finish"',
    ),
    (
        "bindings.py",
        "def log(self",
        "def write(self",
        ALL,
        'Cannot instantiate abstract class "Logger" with abstract attribute "log"',
    ),
    (
        "builder.py",
        "network: INetworkDefinition, log",
        "network: object, log",
        ALL,
        'Argument 1 to "OnnxParser" has incompatible type "object"',
    ),
    ("builder.py", "(module: Module, target", "(module: Any, target", ALL, 'Explicit "Any" is not allowed'),
]
"""File, text, what takes its place, the flavors in which that is wrong, and what mypy says of it there.

Each is another line, so that one run of mypy tells of all.
"""


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.untraced
def test_a_name_or_call_that_a_flavor_lacks_is_found_for_that_flavor_and_no_other(
    flavor: str, sources: dict[str, str], work: dict[str, Path]
) -> None:
    mutated = {**sources, "builder.py": "from typing import Any\n" + sources["builder.py"]}
    for file, old, new, _, _ in MUTATIONS:
        assert mutated[file].count(old) == 1, old
        mutated[file] = mutated[file].replace(old, new)
    found = problems_of(flavor, mutated, work[flavor])
    version = flavor.rpartition("-")[2]
    expected = {said for *_, flavors, said in MUTATIONS if version in flavors.split()}
    assert {said for *_, said in MUTATIONS if any(said in problem for problem in found)} == expected
