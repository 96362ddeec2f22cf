from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from riformer_deploy.api import build
from riformer_deploy.api.build import build_engines
from riformer_deploy.backends import gpu_candidates, pytorch_opening
from riformer_deploy.backends.base import DeviceTimed, DeviceTimes, Outputs, Runtime, WarmTime, graph_of
from riformer_deploy.backends.gpu_candidates import baseline_candidates, engine_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.backends.input_adapter import adapt_input
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.pytorch_candidates import reference
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Baselines, CompileMode, DeviceLayer, InputForm, Precision, Role
from riformer_deploy.common.errors import EngineUnfitError, MissingDependencyError
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.data.transforms import Images, normalize
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.parity import ParityTask, verify_parity
from riformer_deploy.evaluation.results import InputImages, Status, Timing
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.trt import preflight
from riformer_deploy.trt.bindings import TensorRT
from riformer_deploy.trt.build_options import BuildOptions
from tests.fakes.api import FLAVORS
from tests.fakes.gpu import COMPUTE_MS, COPY_TO_DEVICE_MS, COPY_TO_HOST_MS, FakeDevice, FakeGpu
from tests.fakes.tensorrt import bindings

SIZE = (64, 48)
GPU = Gpu(name="Fake L4", compute_capability="8.9", memory_bytes=2**34)
DRIVER = Driver(cuda_version="13.0", gpus=(GPU,), problem=None)
RTX = next(flavor for flavor in FLAVORS if "rtx" in flavor)
NAMES = {TensorRTFlavor.TENSORRT: "TensorRT fp32", TensorRTFlavor.TENSORRT_RTX: "TensorRT-RTX fp32"}


@dataclass
class Machine:
    """A machine with a GPU and the bindings of some flavors; what is on it can be changed."""

    gpu: FakeGpu
    installed: dict[TensorRTFlavor, TensorRT]
    driver: Driver = DRIVER
    layers: list[DeviceLayer] = field(default_factory=list)
    packages: set[str] = field(default_factory=lambda: {"cuda.bindings", "pycuda", "onnxruntime"})

    def load(self, backend: TensorRTFlavor) -> TensorRT:
        return self.installed[backend]

    def version(self, module: str) -> str | None:
        if module in self.packages:
            return "1.0"
        return next(
            (trt.version for backend, trt in self.installed.items() if backend.module == module), None
        )

    def open(self, layer: DeviceLayer) -> FakeDevice:
        self.layers.append(layer)
        return FakeDevice(self.gpu, captures_graphs=layer is not DeviceLayer.PYCUDA)


def _installed(patch: pytest.MonkeyPatch, gpu: FakeGpu) -> Machine:
    fakes = [bindings(flavor, gpu) for flavor in (FLAVORS[0], RTX)]
    made = Machine(gpu, {fake.backend: fake for fake in fakes})
    for module in (build, gpu_candidates, preflight):
        patch.setattr(module, "load", made.load)
        patch.setattr(module, "query_driver", lambda: made.driver)
    for module in (gpu_candidates, preflight):
        patch.setattr(module, "installed_version", made.version)
    patch.setattr(gpu_candidates, "open_device", made.open)
    return made


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu) -> Machine:
    """TensorRT 10.16 and TensorRT-RTX, both fakes, on a fake L4."""
    return _installed(monkeypatch, gpu)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """The tiny model's bundle with an engine of either flavor; read only."""
    directory = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("candidates") / "bundle"))
    gpu = FakeGpu()
    with pytest.MonkeyPatch.context() as patch:
        for backend in _installed(patch, gpu).installed:
            build_engines(directory, BuildOptions(backend=backend))
    gpu.assert_at_rest()
    return directory


@pytest.fixture(scope="module")
def computed(tiny_bundle: Path) -> OnnxRuntime:
    """The tiny model's graph."""
    return OnnxRuntime(tiny_bundle / "model.fp32.onnx")


@pytest.fixture
def bundle(machine: Machine, tmp_path: Path, built: Path, computed: OnnxRuntime) -> Bundle:
    """A copy of ``built`` whose engines compute what its graph does."""
    for trt in machine.installed.values():
        trt.module.computes = lambda _, images: computed.run(images)["logits"]
    return Bundle.open(Path(shutil.copytree(built, tmp_path / "bundle")))


def _reasons(bundle: Bundle) -> dict[str, str]:
    return {item.name: item.reason for item in engine_candidates(bundle, GpuOptions()).skipped}


def test_each_engine_enters_twice_and_says_what_it_takes(bundle: Bundle) -> None:
    selected = engine_candidates(bundle, GpuOptions())
    assert selected.skipped == ()
    assert [item.name for item in selected.candidates] == [
        name for both in NAMES.values() for name in (both, f"{both}, CUDA graph")
    ]
    hashes = {engine.metadata.backend: engine.file.sha256 for engine in bundle.manifest.engines}
    for item in selected.candidates:
        assert (item.batches.ranges, item.observable) == (((1, 32),), False)
        assert item.config.flavor is not None
        assert item.artifact_sha256 == hashes[item.config.flavor]
        assert item.precision is Precision.FP32


@pytest.mark.parametrize("graphs", [(False,), (True,), ()])
def test_only_the_ways_of_launching_that_are_asked_for_enter(
    bundle: Bundle, graphs: tuple[bool, ...]
) -> None:
    names = [item.name for item in engine_candidates(bundle, GpuOptions(cuda_graphs=graphs)).candidates]
    assert [name.endswith(", CUDA graph") for name in names] == [*graphs, *graphs]


def test_an_engine_of_several_profiles_takes_their_sizes_and_is_proven_in_each(
    machine: Machine, tiny_bundle_copy: Path
) -> None:
    profiles = (
        BatchProfile(minimum=1, optimum=1, maximum=1),
        BatchProfile(minimum=4, optimum=8, maximum=16),
    )
    build_engines(tiny_bundle_copy, BuildOptions(backend=TensorRTFlavor.TENSORRT, profiles=profiles))
    assert machine.gpu.made["builder"] == 1
    (item,) = engine_candidates(Bundle.open(tiny_bundle_copy), GpuOptions(cuda_graphs=(False,))).candidates
    assert item.batches.ranges == ((1, 1), (4, 16))
    assert item.parity_batches == (1, 4, 8, 16)


def _task(bundle: Bundle) -> ParityTask:
    batches = (3, 1, 5)
    return ParityTask(
        reference=reference(bundle),
        candidates=engine_candidates(bundle, GpuOptions()).candidates,
        tolerances=TOLERANCES,
        blocks=bundle.manifest.model.architecture.block_names,
        images=synthetic_images(sum(batches), SIZE, seed=1),
        inputs=InputImages(description="test", image_size_px=SIZE, batches=batches, seed=1),
    )


def test_every_engine_is_compared_against_the_reference_and_leaves_nothing(
    bundle: Bundle, machine: Machine
) -> None:
    result = verify_parity(_task(bundle))
    assert result.status is Status.PASSED
    assert len(result.candidates) == 4
    for item in result.candidates:
        assert [output.name for output in item.outputs] == ["logits"]
        assert item.stages == ()
        assert item.first_bad_block is None
        assert item.batches == (3, 1, 5, 8, 32)  # the task's, and those of the profile
    assert machine.gpu.made["graph"] == 5  # TensorRT's, one for each batch size
    machine.gpu.assert_at_rest()


def test_what_each_engine_launched_is_told(bundle: Bundle, machine: Machine) -> None:
    result = verify_parity(_task(bundle))
    assert {item.name: item.graph for item in result.candidates} == {
        "TensorRT fp32": None,
        "TensorRT fp32, CUDA graph": GraphState.CAPTURED,
        "TensorRT-RTX fp32": None,
        "TensorRT-RTX fp32, CUDA graph": GraphState.CAPTURABLE,
    }
    assert machine.gpu.log[-1] == "replay"


@pytest.mark.parametrize("barred", [1, 32], ids="batch {}".format)
def test_a_graph_that_rtx_cannot_capture_at_one_batch_does_not_pass_as_one(
    bundle: Bundle, machine: Machine, barred: int
) -> None:
    rtx = machine.installed[TensorRTFlavor.TENSORRT_RTX].module
    rtx.capturable = lambda shape: shape[0] != barred
    found = {item.name: item for item in verify_parity(_task(bundle)).candidates}
    name = "TensorRT-RTX fp32, CUDA graph"
    assert (found[name].status, found[name].graph) == (Status.PASSED, GraphState.NOT_CAPTURABLE)
    assert found["TensorRT fp32, CUDA graph"].graph is GraphState.CAPTURED


def test_times_of_a_graph_that_rtx_cannot_capture_are_told_apart(bundle: Bundle, machine: Machine) -> None:
    machine.installed[TensorRTFlavor.TENSORRT_RTX].module.capturable = lambda shape: shape[0] != 2
    options = BenchOptions(batches=(1, 2), rounds=5, repeats=1, warmup=1)
    inputs = InputImages(description="test", image_size_px=SIZE, batches=(1, 2), seed=0)
    images = synthetic_images(2, SIZE, seed=0)
    result = measure_latency(engine_candidates(bundle, GpuOptions()).candidates, images, inputs, options)
    assert {(item.name, item.batch): item.graph for item in result.samples} == {
        (name + launch, batch): graph
        for name, both in (("TensorRT fp32", [GraphState.CAPTURED] * 2),
                           ("TensorRT-RTX fp32", [GraphState.CAPTURABLE, GraphState.NOT_CAPTURABLE]))
        for launch, states in ((", CUDA graph", both), ("", [None, None]))
        for batch, graph in zip((1, 2), states, strict=True)
    }  # fmt: skip


def test_an_engine_that_computes_something_else_fails_alone(bundle: Bundle, machine: Machine) -> None:
    good = machine.installed[TensorRTFlavor.TENSORRT].module.computes

    def wrong(plan: Any, images: Any) -> Any:
        logits = good(plan, images)
        logits[0, 3] += 1
        return logits

    machine.installed[TensorRTFlavor.TENSORRT].module.computes = wrong
    result = verify_parity(_task(bundle))
    assert result.status is Status.FAILED
    assert {item.name: item.status for item in result.candidates} == {
        "TensorRT fp32": Status.FAILED,
        "TensorRT fp32, CUDA graph": Status.FAILED,
        "TensorRT-RTX fp32": Status.PASSED,
        "TensorRT-RTX fp32, CUDA graph": Status.PASSED,
    }
    assert {item.first_bad_block for item in result.candidates} == {None}


def test_engines_are_timed_on_the_device_and_by_the_call(bundle: Bundle, machine: Machine) -> None:
    candidates = engine_candidates(bundle, GpuOptions()).candidates
    images = synthetic_images(64, SIZE, seed=0)
    options = BenchOptions(batches=(2, 64), rounds=5, repeats=1, warmup=1)
    inputs = InputImages(description="test", image_size_px=SIZE, batches=(2, 64), seed=0)
    result = measure_latency(candidates, images, inputs, options)
    series = {(item.name, item.timing): item.samples_ms for item in result.samples}
    assert len(series) == 4 * len(Timing)
    for item in candidates:
        assert set(series[item.name, Timing.COMPUTE]) == {COMPUTE_MS}
        assert set(series[item.name, Timing.COMPUTE_WARM]) == {COMPUTE_MS}
        assert set(series[item.name, Timing.TRANSFERS]) == {COPY_TO_DEVICE_MS + COPY_TO_HOST_MS}
    assert {item.batch for item in result.samples} == {2}
    assert [item.reason for item in result.skipped] == ["takes batches of 1 to 32 only, not 64"] * 4
    machine.gpu.assert_at_rest()


def test_an_engine_that_does_not_fit_is_left_out_with_every_reason_and_the_others_stay(
    bundle: Bundle, machine: Machine
) -> None:
    trt = machine.installed[TensorRTFlavor.TENSORRT]
    machine.installed[TensorRTFlavor.TENSORRT] = dataclasses.replace(trt, version="11.4.0.106")
    reasons = _reasons(bundle)
    assert list(reasons) == ["TensorRT fp32"]
    assert "it was built by TensorRT 10.16.1.11; 11.4.0.106 is installed." in reasons["TensorRT fp32"]
    assert "riformer-deploy build" in reasons["TensorRT fp32"]
    names = [item.name for item in engine_candidates(bundle, GpuOptions()).candidates]
    assert names == ["TensorRT-RTX fp32", "TensorRT-RTX fp32, CUDA graph"]


def test_on_another_gpu_and_an_older_driver_both_are_told(bundle: Bundle, machine: Machine) -> None:
    gpu = Gpu(name="Fake T4", compute_capability="7.5", memory_bytes=1)
    machine.driver = Driver(cuda_version="12.4", gpus=(gpu,), problem=None)
    reasons = _reasons(bundle)
    assert "it is for compute capability 8.9; Fake T4 has 7.5." in reasons["TensorRT fp32"]
    assert "need CUDA 13; the driver supports 12.4." in reasons["TensorRT fp32"]
    assert "8.0, 8.6, 8.9, 12.0 and later; Fake T4 has 7.5." in reasons["TensorRT-RTX fp32"]
    assert engine_candidates(bundle, GpuOptions()).candidates == ()


def test_an_engine_for_the_gpu_at_hand_remembers_it_and_runs_on_its_kind_alone(
    machine: Machine, tiny_bundle_copy: Path
) -> None:
    settings = BuildSettings(compute_capabilities=("current",))
    report = build_engines(
        tiny_bundle_copy, BuildOptions(backend=TensorRTFlavor.TENSORRT_RTX, settings=settings)
    )
    (engine,), metadata = report.engines, report.engines[0].metadata
    assert (metadata.settings, metadata.gpu, metadata.gpu_compute_capability) == (settings, "Fake L4", "8.9")
    assert (metadata.targets, report.warnings) == ("8.9", ())
    bundle = Bundle.open(tiny_bundle_copy)
    assert [item.name for item in engine_candidates(bundle, GpuOptions(cuda_graphs=(False,))).candidates] == [
        engine.name
    ]
    other = Gpu(name="Fake RTX 5090", compute_capability="12.0", memory_bytes=1)
    machine.driver = dataclasses.replace(DRIVER, gpus=(other,))
    assert "compute capability 8.9; Fake RTX 5090 has 12.0." in _reasons(bundle)[engine.name]


def test_engines_that_will_not_run_where_they_are_built_are_built_with_a_warning(
    machine: Machine, tiny_bundle_copy: Path
) -> None:
    hopper = Gpu(name="Fake H200", compute_capability="9.0", memory_bytes=1)
    machine.driver = dataclasses.replace(DRIVER, gpus=(hopper,))
    report = build_engines(tiny_bundle_copy, BuildOptions(backend=TensorRTFlavor.TENSORRT_RTX))
    (warning,) = report.warnings
    assert "TensorRT-RTX 1.7.1.116 does not support compute capability 9.0 (Fake H200)" in warning
    (reason,) = _reasons(Bundle.open(tiny_bundle_copy)).values()
    assert "has 9.0, which TensorRT-RTX 1.7.1.116 does not support." in reason
    assert "--backend tensorrt` here" in reason


def test_without_a_gpu_nobody_enters(bundle: Bundle, machine: Machine) -> None:
    machine.driver = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver is installed")
    reasons = _reasons(bundle)
    assert list(reasons) == list(NAMES.values())
    assert all("no NVIDIA driver is installed" in reason for reason in reasons.values())


def test_a_plan_that_its_backend_calls_invalid_is_left_out(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = machine.installed[TensorRTFlavor.TENSORRT_RTX].module
    monkeypatch.setattr(
        module.Runtime,
        "get_engine_validity",
        lambda *_: (module.EngineValidity.INVALID, int(module.EngineInvalidityDiagnostics.OLD_CUDA_DRIVER)),
    )
    reasons = _reasons(bundle)
    assert list(reasons) == ["TensorRT-RTX fp32"]
    assert "TensorRT-RTX calls it invalid: OLD_CUDA_DRIVER." in reasons["TensorRT-RTX fp32"]


def test_bindings_that_cannot_be_imported_leave_their_engines_out(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(backend: TensorRTFlavor) -> TensorRT:
        if backend is TensorRTFlavor.TENSORRT:
            raise MissingDependencyError(
                "tensorrt 10.16 cannot be imported: libnvinfer", remedy="See doctor."
            )
        return machine.load(backend)

    monkeypatch.setattr(preflight, "load", load)
    assert _reasons(bundle) == {"TensorRT fp32": "tensorrt 10.16 cannot be imported: libnvinfer See doctor."}


def test_a_plan_that_was_altered_since_the_line_up_never_reaches_tensorrt(
    bundle: Bundle, machine: Machine
) -> None:
    candidates = engine_candidates(bundle, GpuOptions()).candidates
    for engine in bundle.manifest.engines:
        path = bundle.directory / engine.file.path
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    made = machine.gpu.made["runtime"]
    for item in candidates:
        with pytest.raises(EngineUnfitError, match="cannot run here"):
            item.open()
    assert machine.gpu.made["runtime"] == made
    assert set(_reasons(bundle)) == set(NAMES.values())


def test_a_device_layer_that_is_not_installed_leaves_every_engine_out(
    bundle: Bundle, machine: Machine
) -> None:
    machine.packages.discard("cuda.bindings")
    reasons = _reasons(bundle)
    assert list(reasons) == list(NAMES.values())
    assert all("cuda-python is not installed." in reason for reason in reasons.values())
    assert engine_candidates(bundle, GpuOptions(layer=DeviceLayer.PYCUDA)).candidates


def test_pycuda_runs_everything_but_graphs_that_we_would_have_to_capture(
    bundle: Bundle, machine: Machine
) -> None:
    selected = engine_candidates(bundle, GpuOptions(layer=DeviceLayer.PYCUDA))
    assert [item.name for item in selected.candidates] == [
        "TensorRT fp32",
        "TensorRT-RTX fp32",
        "TensorRT-RTX fp32, CUDA graph",
    ]
    assert [(item.name, item.reason) for item in selected.skipped] == [
        ("TensorRT fp32, CUDA graph", "PyCUDA captures no CUDA graphs")
    ]
    for item in selected.candidates:
        runtime = item.open()
        assert runtime.run(synthetic_images(1, SIZE, seed=0))["logits"].shape == (1, 7)
        runtime.close()
    assert set(machine.layers) == {DeviceLayer.PYCUDA}


def test_kernels_that_rtx_compiled_are_kept_beside_the_engine(bundle: Bundle, machine: Machine) -> None:
    compiled = machine.installed[TensorRTFlavor.TENSORRT_RTX].module.compiled
    for _ in range(2):
        (item,) = engine_candidates(bundle, GpuOptions(cuda_graphs=(False,))).candidates[1:]
        runtime = item.open()
        runtime.run(synthetic_images(1, SIZE, seed=0))
        runtime.close()
    assert len(compiled) == 1
    assert [path.name for path in bundle.directory.glob(".*.cache")] == [
        ".model.fp32.tensorrt-rtx.engine.cache"
    ]
    assert Bundle.open(bundle.directory).manifest == bundle.manifest


@dataclass
class Timed(Runtime):
    """Remembers what it was given."""

    seen: list[Any] = field(default_factory=list)

    def run(self, images: Images) -> Outputs:
        self.seen.append(images)
        return {}

    def device_times(self, images: Images) -> DeviceTimes:
        self.seen.append(images)
        return DeviceTimes(staging_ms=4, to_device_ms=1, compute_ms=2, to_host_ms=3)

    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        self.seen.append(images)
        return WarmTime(compute_ms=inferences)

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("lowering", "dtype"),
    [
        (LoweringConfig(), np.float32),
        (LoweringConfig(io=Precision.FP16), np.float16),
        (LoweringConfig(input_form=InputForm.UINT8), np.uint8),
    ],
)
def test_an_engine_is_fed_what_its_graph_takes_and_stays_one_that_keeps_time(
    tiny_bundle: Path, lowering: Any, dtype: Any
) -> None:
    timed = Timed()
    bundle = Bundle.open(tiny_bundle)
    runtime = adapt_input(timed, bundle, lowering)
    images = normalize(np.full((2, *SIZE, 3), 77, np.uint8), bundle.manifest.model.preprocessing)
    assert isinstance(runtime, DeviceTimed)
    runtime.run(images)
    assert runtime.device_times(images).compute_ms == 2
    assert runtime.warm_time(images, 3).compute_ms == 3
    assert [item.dtype for item in timed.seen] == [dtype] * 3
    assert timed.seen[0] is timed.seen[1] is timed.seen[2]  # converted once


def test_what_is_known_of_its_graphs_is_known_of_an_engine_that_is_fed(tiny_bundle: Path) -> None:
    @dataclass
    class Launched(Timed):
        graph_states: dict[int, GraphState] = field(default_factory=lambda: {1: GraphState.NOT_CAPTURABLE})

    half = LoweringConfig(io=Precision.FP16)
    bundle = Bundle.open(tiny_bundle)
    assert graph_of(adapt_input(Launched(), bundle, half)) is GraphState.NOT_CAPTURABLE
    assert graph_of(adapt_input(Timed(), bundle, half)) is graph_of(Timed()) is None


def test_there_are_no_baselines_without_a_gpu(bundle: Bundle, machine: Machine) -> None:
    machine.driver = Driver(cuda_version=None, gpus=(), problem="none")
    selected = baseline_candidates(bundle, GpuOptions())
    assert (selected.candidates, selected.skipped) == ((), ())


def test_baselines_that_cannot_run_are_named_with_the_reason(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_candidates, "require", lambda _: Providers(["CPUExecutionProvider"]))
    selected = baseline_candidates(bundle, GpuOptions())
    assert selected.candidates == ()
    reasons = {item.name: item.reason for item in selected.skipped}
    assert len(reasons) == 7  # six ways of running PyTorch, and one graph
    assert "without CUDA" in reasons["PyTorch float16, GPU, channels last, eager"]
    assert "no CUDA provider" in reasons["ONNX Runtime CUDA fp32"]
    machine.packages.clear()
    assert baseline_candidates(bundle, GpuOptions()).skipped[-1].reason == "ONNX Runtime is not installed"


@dataclass
class Providers:
    """ONNX Runtime as far as it is asked for its providers."""

    names: list[str]

    def get_available_providers(self) -> list[str]:
        return self.names


@pytest.mark.parametrize(
    ("baselines", "count"), [(Baselines.QUICK, 5), (Baselines.STRONG, 6), (Baselines.ALL, 30)]
)
def test_every_baseline_is_a_way_of_its_own_of_running_the_bundles_weights(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, baselines: Baselines, count: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_candidates, "require", lambda _: Providers(["CUDAExecutionProvider"]))
    candidates = baseline_candidates(bundle, GpuOptions(baselines=baselines)).candidates
    names = [item.name for item in candidates]
    assert len(set(names)) == len(names) == count + 1
    assert names[0] == "PyTorch float32, GPU, eager"
    for mode in ("reduce-overhead", "max-autotune")[: 1 if baselines is Baselines.QUICK else 2]:
        assert (
            f"PyTorch float16, GPU, channels last, torch.compile {mode} with CUDA graphs, "
            "1x1 convolutions as matrix products"
        ) in names
    assert names[-1] == "ONNX Runtime CUDA fp32"
    assert {item.role for item in candidates[:-1]} == {Role.BASELINE}
    assert candidates[-1].role is Role.CANDIDATE  # it runs the bundle's own file
    assert {item.role for item in engine_candidates(bundle, GpuOptions()).candidates} == {Role.CANDIDATE}


def test_no_baselines_leave_only_what_runs_the_bundles_own_files(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_candidates, "require", lambda _: Providers(["CUDAExecutionProvider"]))
    candidates = baseline_candidates(bundle, GpuOptions(baselines=Baselines.NONE)).candidates
    assert [item.name for item in candidates] == ["ONNX Runtime CUDA fp32"]


@pytest.mark.usefixtures("machine")
def test_a_baseline_is_run_as_it_says(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Form, dict[str, Any]]] = []

    def note(model: RIFormer, **options: Any) -> str:
        made.append((model.form, options))
        return "runtime"

    monkeypatch.setattr(pytorch_opening, "CudaPyTorchRuntime", note)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    candidates = baseline_candidates(bundle, GpuOptions()).candidates
    for item in candidates:
        if "PyTorch" in item.name:
            item.open()
    options = {
        "dtype": torch.float32,
        "compiled": False,
        "channels_last": False,
        "mode": CompileMode.REDUCE_OVERHEAD,
        "conv_1x1_as_mm": False,
    }
    eager = {**options, "dtype": torch.float16, "channels_last": True}
    compiled = {**eager, "compiled": True, "conv_1x1_as_mm": True}
    assert made == [
        (Form.DEPLOY, options),
        (Form.FOLDED, {**compiled, "dtype": torch.float32}),
        (Form.DEPLOY, eager),
        (Form.FOLDED, compiled),
        (Form.FOLDED, {**compiled, "dtype": torch.bfloat16}),
        (Form.FOLDED, {**compiled, "mode": CompileMode.MAX_AUTOTUNE}),
    ]


def test_a_bundle_survives_a_copy_with_its_engines(bundle: Bundle, tmp_path: Path) -> None:
    copied = Bundle.open(shutil.copytree(bundle.directory, tmp_path / "copy"))
    assert len(engine_candidates(copied, GpuOptions()).candidates) == 4
