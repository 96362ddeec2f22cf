"""Our code uses what every flavor has, or asks first; and the check that says so can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.trt.builder import BuildRequest, build_plan
from riformer_deploy.trt.engine import _DTYPES, Engine, validity
from tests.conformance.inference import Findings, Use
from tests.conformance.usage import Reader, sources_of
from tests.fakes.api import FLAVORS, SEVERITIES, api_of
from tests.fakes.gpu import FakeDevice, FakeGpu
from tests.fakes.tensorrt import bindings
from tests.fakes.trt_building import write_graph


@pytest.fixture(scope="session")
def sources(repository: Path) -> dict[str, str]:
    """The package that touches TensorRT."""
    return sources_of(repository / "riformer_deploy" / "trt")


def _read(flavor: str, sources: dict[str, str]) -> Findings:
    return Reader(api_of(flavor), sources).read()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_member_that_is_used_is_there_and_every_call_is_taken(
    flavor: str, sources: dict[str, str]
) -> None:
    found = _read(flavor, sources)
    assert not found.problems
    assert not found.untyped
    assert Use("IExecutionContext", "execute_async_v3") in found.uses
    assert (Use("IRuntimeConfig", "set_runtime_cache") in found.uses) == ("rtx" in flavor)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_no_other_module_touches_tensorrt(repository: Path, flavor: str) -> None:
    package = repository / "riformer_deploy"
    others = {
        str(path.relative_to(package)): path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if path.parent.name != "trt" and "TensorRT" in path.read_text(encoding="utf-8")
    }
    assert "backends/tensorrt.py" in others
    found = _read(flavor, others)
    assert not found.uses


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_is_used_at_run_time_was_found_by_reading(
    flavor: str, sources: dict[str, str], tmp_path: Path
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
    read = {(use.owner, use.member) for use in _read(flavor, sources).uses}
    assert len(trt.module.used) >= 40
    assert trt.module.used <= read


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


GUARD = """        if not hasattr(self._trt.module, "IRuntimeCache"):
            return None, None
"""
ALL = "10.16 11.4 1.7"

MUTATIONS = [
    ("builder.py", "flags.TF32", "flags.FP16", "11.4 1.7", "BuilderFlag of .* has no FP16"),
    ("engine.py", "device_memory_size_v2", "device_memory_size", "11.4 1.7", "no device_memory_size"),
    (
        "engine.py",
        "self._engine.num_layers",
        "self._engine.has_implicit_batch_dimension",
        "11.4 1.7",
        "batch",
    ),
    ("builder.py", "Flag.STRONGLY_TYPED", "Flag.EXPLICIT_BATCH", "11.4 1.7", "no EXPLICIT_BATCH"),
    ("builder.py", "parser.num_errors", "parser.num_findings", ALL, "OnnxParser of .* has no num_findings"),
    ("builder.py", "config.builder_optimization_level =", "config.dla =", ALL, "no dla"),
    (
        "builder.py",
        "layer.get_output(0).dtype",
        "layer.precision",
        "11.4 1.7",
        "no precision",
    ),
    ("builder.py", "error.node_operator()", "error.operator()", ALL, "ParserError of .* has no operator"),
    ("engine.py", GUARD, "", "10.16 11.4", "ICudaEngine|IRuntimeConfig|module"),
    (
        "builder.py",
        'not hasattr(config, "num_compute',
        'hasattr(config, "num_compute',
        "10.16 11.4",
        "num_comp",
    ),
    ("engine.py", 'not hasattr(trt.module.Runtime, "get', 'not hasattr(trt, "get', "10.16 11.4", "validity"),
    (
        "builder.py",
        "ignore_mismatch=False",
        "ignore=False",
        ALL,
        "set_timing_cache .* takes other",
    ),
    ("engine.py", "execute_async_v3(stream)", "execute_async_v3(stream, 0)", ALL, "takes other arguments"),
    ("engine.py", "get_tensor_name(index)", "get_tensor_name()", ALL, "takes other arguments"),
    (
        "builder.py",
        "phase_name: str, step: int)",
        "step: int)",
        ALL,
        "step_complete .* takes other",
    ),
    (
        "builder.py",
        "def phase_finish(self",
        "def phase_end(self",
        ALL,
        "no phase_end",
    ),
    ("bindings.py", "def log(self", "def write(self", ALL, "ILogger of .* has no write"),
    ("builder.py", "levels.AMPERE_PLUS", 'getattr(levels, "AMPERE" + "_PLUS")', ALL, "made up at run time"),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "flavors", "said"), MUTATIONS, ids=[f"{m[0]}-{m[2][:30]}" for m in MUTATIONS]
)
def test_a_name_or_call_that_a_flavor_lacks_is_found_for_that_flavor_and_no_other(
    sources: dict[str, str], file: str, old: str, new: str, flavors: str, said: str
) -> None:
    assert old in sources[file]
    mutated = {**sources, file: sources[file].replace(old, new)}
    for flavor in FLAVORS:
        problems = _read(flavor, mutated).problems
        if flavor.rpartition("-")[2] in flavors.split():
            assert problems
            with pytest.raises(AssertionError, match=said):
                assert not problems, " ".join(problems)
        else:
            assert not problems


def test_a_parameter_that_could_be_anything_is_found(sources: dict[str, str]) -> None:
    mutated = sources["builder.py"].replace("(network: Any)", "(network: Any, more: Any = None)")
    found = _read(FLAVORS[0], {**sources, "builder.py": mutated})
    assert found.untyped == {"_network_layers(more)"}
