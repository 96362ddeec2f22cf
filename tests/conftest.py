"""Models, files and bundles that tests share; session-wide ones are read only (copy them to change them)."""

from __future__ import annotations

# isort: off
import tests.imported_untraced  # noqa: F401  # before all others
# isort: on

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from riformer_deploy.api import build, doctor
from riformer_deploy.api.build import build_engines
from riformer_deploy.api.run import RunOptions, Target, run_checkpoint
from riformer_deploy.backends import candidates, gpu_candidates
from riformer_deploy.backends.base import Outputs
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.engine_metadata import BatchProfile, TensorRTFlavor
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common import dependencies
from riformer_deploy.common.enums import Precision
from riformer_deploy.data.calibration_files import npz_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.results import Status
from riformer_deploy.model.architecture import LAST_STAGE, Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, calibrate
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.system import machine
from riformer_deploy.system.cuda_driver import Driver
from riformer_deploy.trt import preflight
from riformer_deploy.trt.build_options import BuildOptions
from tests.sharing import exporting_once, made_once, shared_folder
from tests.tracing import untraced

REAL_EXPORT = torch.onnx.export
ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--run-gpu`` selects what needs an NVIDIA GPU; the others say what it runs on."""
    parser.addoption("--run-gpu", action="store_true", help="run the tests that need an NVIDIA GPU")
    parser.addoption(
        "--bundles",
        metavar="DIR",
        help="a folder of exported bundles (digits), for a machine that cannot export",
    )
    parser.addoption(
        "--stand-in",
        choices=("cuda", "cpu"),
        default="cuda",
        help="where the stand-in for TensorRT computes: cpu is a dry run of its tests without a GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Each of pytest-xdist's workers, and what it starts, has a core of its own.

    Runtimes take as many threads as there are cores: on busy ones their threads wait for each other, at
    several times the cost.
    """
    if hasattr(config, "workerinput") and hasattr(os, "sched_setaffinity"):
        cores, number = (
            sorted(os.sched_getaffinity(0)),
            int(config.workerinput["workerid"].removeprefix("gw")),
        )
        os.sched_setaffinity(0, {cores[number % len(cores)]})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked ``sampled(count)`` all but so many, spread evenly, are slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        marker = found[0].get_closest_marker("sampled")
        count = marker.args[0] if marker else len(found)
        quick = {len(found) * place // count for place in range(count)}
        for place, item in enumerate(found):
            if place not in quick:
                item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Coverage pauses in a test that is marked ``untraced``; not in its fixtures."""
    with untraced() if item.get_closest_marker("untraced") else contextlib.nullcontext():
        return (yield)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models in one thread each: on a busy machine two threads mostly wait for each other."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its workers share; use :func:`tests.sharing.made_once`."""
    return shared_folder(request, tmp_path_factory)


@pytest.fixture(scope="session", autouse=True)
def remembered_exports(shared: Path) -> Iterator[None]:
    """PyTorch's exporter, the slowest thing here, exports the same model in the same way once in a run."""
    yield from exporting_once(shared / "exports")


@pytest.fixture
def fresh_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's exporter as it is: nothing that another test exported is taken."""
    monkeypatch.setattr(torch.onnx, "export", REAL_EXPORT)


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared: Path) -> Iterator[Path]:
    """Calibrations are cached in a folder of this run, not in the user's."""
    folder = shared / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return ROOT


@pytest.fixture(scope="session")
def digits_checkpoint() -> Path:
    """A really trained RIFormer, as mmengine wrote it: 64 px, 10 classes, history buffers and all."""
    return ROOT / "examples" / "riformer-digits.pth"


@pytest.fixture(scope="session")
def digits_data() -> dict[str, NDArray[Any]]:
    """Validation images, labels, mmpretrain's logits in both forms, and calibration images."""
    with np.load(DATA / "riformer-digits.npz") as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="session")
def calibration_file(shared: Path, digits_data: dict[str, NDArray[Any]]) -> Path:
    """The 128 calibration images of the digits, as a user would give them; none is a validation image."""
    images = digits_data["calibration_images"]
    return made_once(shared / "calibration.npz", lambda path: np.savez(path, images=images))


@pytest.fixture(scope="session")
def digits_folded(digits_checkpoint: Path) -> RIFormer:
    """The digits' model in folded form; read only."""
    return fold(model_of(digits_checkpoint))


@pytest.fixture(scope="session")
def digits_preprocessing() -> Preprocessing:
    """What is done to a digit: ImageNet's normalisation, 64 px, no resizing."""
    return Preprocessing(resize_short_edge_px=None, crop_px=(64, 64))


@pytest.fixture(scope="session")
def digits_reference(digits_checkpoint: Path, digits_inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits of the training form in float64 on the 397 validation images."""
    torch.set_num_threads(1)
    model = model_of(digits_checkpoint, torch.float64)
    with torch.inference_mode():
        parts = [model(part.double()) for part in torch.split(torch.from_numpy(digits_inputs), 32)]
    result: NDArray[np.float64] = torch.cat(parts).numpy()
    return result


@pytest.fixture(scope="session")
def calibrated(
    digits_folded: RIFormer, digits_preprocessing: Preprocessing, calibration_file: Path
) -> CalibrationResult:
    """The digits' model calibrated on its calibration images; MSE scales, equalised."""
    torch.set_num_threads(1)
    images = npz_set(calibration_file, digits_preprocessing)
    return calibrate(Observations(digits_folded, images), "digits", CalibrationConfig())


@pytest.fixture(scope="session")
def digits_inputs(digits_data: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The 397 validation images normalised, (397, 3, 64, 64) float32."""
    mean = np.array((123.675, 116.28, 103.53), dtype=np.float32)
    std = np.array((58.395, 57.12, 57.375), dtype=np.float32)
    scaled = (digits_data["val_images"].astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """The golden files' ``fill(key, shape, seed)`` and ``golden_input(side)``."""
    spec = importlib.util.spec_from_file_location("golden_weights", DATA / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_architecture() -> Architecture:
    """Five blocks, two of them in stage 3, seven classes."""
    return Architecture(
        layers=(1, 1, 2, 1), embed_dims=(8, 16, 24, 32), hidden_dims=(16, 24, 32, 48), num_classes=7
    )


@pytest.fixture(scope="session")
def filled(golden: ModuleType) -> Callable[..., dict[str, Tensor]]:
    """``filled(architecture, form, seed, out_indices)``: golden weights, float32, new tensors."""

    def fill(
        architecture: Architecture,
        form: Form = Form.TRAINING,
        seed: int = 0,
        out_indices: Sequence[int] = (LAST_STAGE,),
    ) -> dict[str, Tensor]:
        return {
            key: torch.from_numpy(golden.fill(key, shape, seed))
            for key, shape in architecture.shapes(form, out_indices).items()
        }

    return fill


@pytest.fixture
def tiny_state(
    tiny_architecture: Architecture, filled: Callable[..., dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tiny model's training-form weights; the test's own."""
    return filled(tiny_architecture)


@pytest.fixture
def tiny_model(tiny_architecture: Architecture, tiny_state: dict[str, Tensor]) -> RIFormer:
    """The tiny model in training form; the test's own."""
    return model_from_state(tiny_architecture, Form.TRAINING, tiny_state)


def _write(
    path: Path,
    state: dict[str, Any],
    *,
    wrapper: str | None = "state_dict",
    prefix: str = "",
    dtype: torch.dtype | None = None,
    legacy: bool = False,
    **entries: Any,
) -> Path:
    disguised = {
        prefix + key: value.to(dtype) if dtype is not None else value for key, value in state.items()
    }
    content = {**entries, wrapper: disguised} if wrapper else {**disguised, **entries}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture
def write_checkpoint(tmp_path: Path, tiny_state: dict[str, Tensor]) -> Callable[..., Path]:
    """``write_checkpoint(state, name=..., wrapper=..., prefix=..., dtype=..., legacy=..., **entries)``.

    Writes a checkpoint into the test's folder: ``state`` (None for the tiny model's) with ``prefix``
    before every key, as ``dtype``, under the key ``wrapper`` (None for a bare state dict), in the
    legacy format or the zip one; ``entries`` go beside it, such as ``meta`` or ``ema_state_dict``.
    """

    def write(state: dict[str, Any] | None = None, *, name: str = "tiny.pth", **disguise: Any) -> Path:
        return _write(tmp_path / name, tiny_state if state is None else state, **disguise)

    return write


@pytest.fixture(scope="session")
def tiny_checkpoint(
    shared: Path,
    tiny_architecture: Architecture,
    filled: Callable[..., dict[str, Tensor]],
) -> Path:
    """The tiny model's checkpoint file (``tiny.pth``), with class names in its meta."""
    names = [f"class {index}" for index in range(tiny_architecture.num_classes)]
    meta = {"epoch": 3, "dataset_meta": {"classes": names}}
    return made_once(shared / "tiny.pth", lambda path: _write(path, filled(tiny_architecture), meta=meta))


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's mmengine config (``tiny.py``, 48 px); beside it ``tiny-deploy.py``, in deploy form."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(
        """
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=48)]
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='RIFormer',
        arch=dict(layers=[1, 1, 2, 1], embed_dims=[8, 16, 24, 32], mlp_ratios=[2, 1.5, 1.3334, 1.5])),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=32))
""",
        encoding="utf-8",
    )
    (path.parent / "tiny-deploy.py").write_text(
        "_base_ = './tiny.py'\nmodel = dict(backbone=dict(deploy=True))\n", encoding="utf-8"
    )
    return path


@pytest.fixture(scope="session")
def other_checkpoint(
    shared: Path,
    tiny_architecture: Architecture,
    filled: Callable[..., dict[str, Tensor]],
) -> Path:
    """A checkpoint of the tiny shape with other weights (``other.pth``)."""
    return made_once(shared / "other.pth", lambda path: _write(path, filled(tiny_architecture, seed=1)))


def _export(checkpoint: Path, output: Path, size: tuple[int, int], **options: Any) -> Path:
    pytest.importorskip("onnxsim", reason="onnxsim, which exporting needs, is not installed")
    from riformer_deploy.api.export import ExportOptions, export_checkpoint  # noqa: PLC0415  # it imports onnxsim

    def make(path: Path) -> None:
        torch.set_num_threads(1)
        # paths as text, as users give them; tests of exports give Path
        asked = ExportOptions(checkpoint=str(checkpoint), output=str(path), image_size_px=size, **options)
        with untraced():
            report = export_checkpoint(asked)
        assert report.status is Status.PASSED

    return made_once(output, make)


@pytest.fixture(scope="session")
def tiny_bundle(shared: Path, tiny_checkpoint: Path) -> Path:
    """The bundle of ``tiny_checkpoint`` at 64x48 px (height x width), dynamic batch; read only."""
    return _export(tiny_checkpoint, shared / "tiny", (64, 48))


@pytest.fixture(scope="session")
def digits_bundle(shared: Path, digits_checkpoint: Path) -> Path:
    """The bundle of ``digits_checkpoint`` at 64 px, dynamic batch; read only."""
    return _export(digits_checkpoint, shared / "riformer-digits", (64, 64))


@pytest.fixture(scope="session")
def precise_bundle(shared: Path, digits_checkpoint: Path, calibration_file: Path) -> Path:
    """The digits in fp32, fp16 and int8, calibrated on their calibration images; read only."""
    return _export(
        digits_checkpoint,
        shared / "precise",
        (64, 64),
        lowerings=tuple(
            LoweringConfig(precision=item) for item in (Precision.FP32, Precision.FP16, Precision.INT8)
        ),
        calibration=str(calibration_file),
    )


@pytest.fixture(scope="session")
def fp8_bundle(shared: Path, digits_checkpoint: Path, calibration_file: Path) -> Path:
    """The digits in fp8, calibrated on their calibration images; read only."""
    return _export(
        digits_checkpoint,
        shared / "fp8",
        (64, 64),
        lowerings=(LoweringConfig(precision=Precision.FP8),),
        calibration=str(calibration_file),
    )


@pytest.fixture
def tiny_bundle_copy(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A copy of ``tiny_bundle`` that the test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def pretend_versions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``pretend_versions(absent, {name: version})``: distributions that are not installed, and some that are.

    ``absent(name)`` says whether one is to be missing; those that are given are there all the same.
    """
    real = dependencies.distribution_version

    def pretend(absent: Callable[[str], bool], given: Mapping[str, str] = MappingProxyType({})) -> None:
        def version(name: str) -> str | None:
            return given.get(name, None if absent(name) else real(name))

        for module in (dependencies, doctor, machine):
            monkeypatch.setattr(module, "distribution_version", version)

    return pretend


@pytest.fixture
def without_openvino(pretend_versions: Callable[..., None]) -> None:
    """As where OpenVINO is not installed: compiling a model takes longer than all else of a small export."""
    pretend_versions(lambda name: name == "openvino")


@pytest.fixture
def noisy_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO as on a processor in whose arithmetic it fails: its outputs are off by a thousandth."""

    class Noisy(OpenVinoRuntime):
        def run(self, images: Images) -> Outputs:
            return {name: values * np.float32(1.001) for name, values in super().run(images).items()}

    monkeypatch.setattr(candidates, "OpenVinoRuntime", Noisy)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A machine without a GPU, wherever the tests run."""
    driver = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
    for module in (build, gpu_candidates, preflight):
        monkeypatch.setattr(module, "query_driver", lambda: driver)
    return driver


@pytest.fixture(scope="session")
def engine_bundle(shared: Path, tiny_bundle: Path) -> Path:
    """The tiny bundle with an engine of TensorRT-RTX; read only."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")

    def make(path: Path) -> None:
        shutil.copytree(tiny_bundle, path)
        profiles = (BatchProfile(minimum=1, optimum=8, maximum=32),)
        build_engines(path, BuildOptions(backend=TensorRTFlavor.TENSORRT_RTX, profiles=profiles))

    return made_once(shared / "engines", make)


@pytest.fixture
def engine_bundle_copy(tmp_path: Path, engine_bundle: Path) -> Path:
    """A copy of ``engine_bundle`` that the test may change."""
    return Path(shutil.copytree(engine_bundle, tmp_path / "engines"))


@pytest.fixture
def onnx_of() -> Callable[[Path], Path]:
    """``onnx_of(bundle_directory)``: path of the bundle's ONNX file."""
    return lambda directory: directory / Bundle.open(directory).manifest.onnx[0].file.path


def _picture(rng: np.random.Generator, path: Path) -> None:
    Image.fromarray(rng.integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="session")
def labelled_pictures(shared: Path) -> Path:
    """Twenty-one pictures in the folders of the tiny model's seven classes; read only."""

    def make(path: Path) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        for label in range(7):
            (path / f"class {label}").mkdir(parents=True)
            for number in range(3):
                _picture(rng, path / f"class {label}" / f"{number}.png")

    return made_once(shared / "labelled", make)


@pytest.fixture(scope="session")
def calibration_pictures(shared: Path) -> Path:
    """Sixteen pictures without labels; read only."""

    def make(path: Path) -> None:
        rng = np.random.Generator(np.random.PCG64(1))
        path.mkdir()
        for number in range(16):
            _picture(rng, path / f"{number}.png")

    return made_once(shared / "calibrating", make)


@pytest.fixture(scope="session")
def asked(tiny_checkpoint: Path, labelled_pictures: Path) -> Callable[..., RunOptions]:
    """``asked(output, **options)``: a run of the tiny model on the CPU, as short as can be."""

    def options(output: Path, **changed: object) -> RunOptions:
        chosen: dict[str, object] = {
            "checkpoint": tiny_checkpoint,
            "output": output,
            "target": Target.CPU,
            "data": labelled_pictures,
            "image_size_px": (64, 48),
            "batches": (1,),
            "max_seconds": 0.01,
            **changed,
        }
        return RunOptions(**chosen)  # type: ignore[arg-type]  # the test's own

    return options


@pytest.fixture(scope="session")
def finished_run(shared: Path, asked: Callable[..., RunOptions]) -> Path:
    """The bundle that ``asked`` gives, without calibration images; read only."""
    pytest.importorskip("onnxsim", reason="onnxsim, which exporting needs, is not installed")

    def make(path: Path) -> None:
        torch.set_num_threads(1)
        with untraced():
            run_checkpoint(asked(path))

    return made_once(shared / "run", make)


@pytest.fixture
def finished_copy(tmp_path: Path, finished_run: Path) -> Path:
    """A copy of ``finished_run`` that the test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
