"""Our whole path over the stand-in's CPU form: builder, runtimes, parity, and the tests that a GPU runs."""

from __future__ import annotations

import gc
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.api import build
from riformer_deploy.api.build import build_engines
from riformer_deploy.api.parity import measure_parity
from riformer_deploy.backends import gpu_candidates
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.tensorrt import EngineRuntime
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.enums import DeviceLayer, Group
from riformer_deploy.common.errors import EngineBuildError, RuntimeFailureError
from riformer_deploy.common.progress import silent
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.results import Status
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.system import cuda_driver
from riformer_deploy.trt import preflight
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.build_options import BuildOptions
from riformer_deploy.trt.builder import BuildRequest, build_plan
from riformer_deploy.trt.engine import Engine
from tests.fakes.gpu import ProtocolError
from tests.fakes.standin.bindings import VERSION
from tests.fakes.standin.cases import Case
from tests.fakes.standin.installing import HOST, StandIn, standing_in

pytestmark = pytest.mark.untraced

PROFILE = BatchProfile(minimum=1, optimum=4, maximum=8)


@pytest.fixture
def there() -> Iterator[StandIn]:
    """The stand-in in TensorRT's place; nothing of it may be left at the end."""
    with standing_in("cpu") as found:
        yield found
        gc.collect()  # an exception that was caught holds what it went through
        found.gpu.assert_at_rest()


@pytest.fixture(scope="module")
def with_engines(precise_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with engines of every precision; read only."""
    folder = Path(shutil.copytree(precise_bundle, tmp_path_factory.mktemp("stand-in") / "digits"))
    with standing_in("cpu"):
        build_engines(folder, BuildOptions(backend=TensorRTFlavor.TENSORRT, profiles=(PROFILE,)))
    return folder


def test_it_is_in_place_for_a_while_only() -> None:
    before = (installed_version("tensorrt"), sys.modules.get("tensorrt"), list(sys.path))
    with standing_in("cpu") as there:
        assert installed_version("tensorrt") == VERSION == load(TensorRTFlavor.TENSORRT).version
        assert load(TensorRTFlavor.TENSORRT).module is there.trt.module
        assert importlib.util.find_spec("tensorrt") is not None
        for module in (build, gpu_candidates, preflight):
            assert module.query_driver() is HOST
    for module in (cuda_driver, build, gpu_candidates, preflight):
        assert module.query_driver() is not HOST
    assert (installed_version("tensorrt"), sys.modules.get("tensorrt"), list(sys.path)) == before
    assert "cuda.bindings.runtime" not in sys.modules or hasattr(
        sys.modules["cuda.bindings.runtime"], "__spec__"
    )


@pytest.mark.usefixtures("there")
def test_engines_of_every_precision_hold_their_tolerances_plain_and_as_a_graph(with_engines: Path) -> None:
    bundle = Bundle.open(with_engines)
    assert {engine.metadata.backend_version for engine in bundle.manifest.engines} == {VERSION}
    result = measure_parity(bundle, TOLERANCES, groups=(Group.ENGINE,))
    assert result.skipped == ()
    assert {candidate.name: candidate.status for candidate in result.candidates} == {
        f"TensorRT {precision}{how}": Status.PASSED
        for precision in ("fp32", "fp16", "int8")
        for how in ("", ", CUDA graph")
    }


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graph"])
def test_an_engine_gives_what_onnx_runtime_gives(there: StandIn, with_engines: Path, *, graphs: bool) -> None:
    bundle = Bundle.open(with_engines)
    engine = bundle.manifest.engines[0]
    true = OnnxRuntime(bundle.path_of(bundle.manifest.onnx[0].file))
    runtime = EngineRuntime(
        bundle.path_of(engine.file),
        engine.metadata,
        there.trt,
        open_device(DeviceLayer.CUDA_PYTHON),
        cuda_graphs=graphs,
    )
    try:
        for seed, batch in enumerate((1, 8, 3, 2, 5, 4, 1)):  # more than stay prepared
            images = synthetic_images(batch, (64, 64), seed=seed)
            expected = true.run(images)["logits"]
            np.testing.assert_allclose(runtime.run(images)["logits"], expected, rtol=1e-4, atol=1e-4)
        times = runtime.device_times(images)
        assert min(times.to_device_ms, times.compute_ms, times.to_host_ms) > 0
        with pytest.raises(RuntimeFailureError, match="does not take batch 9"):
            runtime.run(synthetic_images(9, (64, 64), seed=0))
    finally:
        runtime.close()
        true.close()


def test_a_graph_with_an_unknown_operator_is_refused_by_node(there: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(Case(op="Cos", inputs={"x": np.ones((2, 3), np.float32)}, order=["x"]).model())
    request = BuildRequest(
        onnx=path, input_name="x", sample_shape=(3,), profiles=(PROFILE,), settings=BuildSettings()
    )
    with pytest.raises(EngineBuildError, match="cannot parse") as caught:
        build_plan(there.trt, request, silent, lambda *_: None)
    assert [detail.startswith("node 0 (tested, operator Cos)") for detail in caught.value.details] == [True]


def test_what_is_no_graph_is_refused(there: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x99 no model")
    request = BuildRequest(
        onnx=path, input_name="x", sample_shape=(3,), profiles=(PROFILE,), settings=BuildSettings()
    )
    with pytest.raises(EngineBuildError, match="cannot parse"):
        build_plan(there.trt, request, silent, lambda *_: None)


def test_plans_of_others_are_refused(there: StandIn) -> None:
    with pytest.raises(RuntimeFailureError, match="could not load") as caught:
        Engine(there.trt, b"ftrt plan of TensorRT itself", what="plan")
    assert any("no plan of the stand-in" in detail for detail in caught.value.details)


def _one_context(there: StandIn, with_engines: Path) -> tuple[Engine, dict[str, tuple[int, ...]]]:
    bundle = Bundle.open(with_engines)
    plan = bundle.path_of(bundle.manifest.engines[0].file).read_bytes()
    return Engine(there.trt, plan, what="plan"), {"images": (1, 3, 64, 64), "logits": (1, 10)}


def test_memory_that_was_freed_is_not_computed_on(with_engines: Path) -> None:
    with standing_in("cpu") as there:
        engine, shapes = _one_context(there, with_engines)
        device = open_device(DeviceLayer.CUDA_PYTHON)
        context = engine.context()
        assert context.prepare("images", shapes["images"], profile=0, stream=device.stream) == shapes
        buffers = {name: device.allocate(4 * int(np.prod(shape))) for name, shape in shapes.items()}
        for name, buffer in buffers.items():
            context.bind(name, buffer.address)
        context.execute(device.stream)
        device.free(buffers["logits"])
        with pytest.raises(ProtocolError, match="no such memory"):
            device.synchronize()


def test_a_capture_before_the_first_run_is_refused(with_engines: Path) -> None:
    """On a GPU it would allocate inside the capture."""
    with standing_in("cpu") as there:
        engine, shapes = _one_context(there, with_engines)
        device = open_device(DeviceLayer.CUDA_PYTHON)
        context = engine.context()
        context.prepare("images", shapes["images"], profile=0, stream=device.stream)
        for name, shape in shapes.items():
            context.bind(name, device.allocate(4 * int(np.prod(shape))).address)
        with pytest.raises(ProtocolError, match="never ran"):
            device.capture(lambda: context.execute(device.stream))


@pytest.mark.slow
def test_the_tests_that_a_gpu_runs_pass_in_a_dry_run(
    repository: Path, precise_bundle: Path, tmp_path: Path
) -> None:
    """They run on a GPU rarely: here it shows that they still fit what they test."""
    (tmp_path / "digits").symlink_to(precise_bundle)
    chosen = (
        "stand-in and not device_times and not memory and not pycuda"  # those need time, or a GPU's figures
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/gpu/test_engines_on_gpu.py",
    ]
    command += ["--run-gpu", "--stand-in", "cpu", "--bundles", str(tmp_path), "-k", chosen]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
