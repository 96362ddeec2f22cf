"""Contestants on a GPU: the bundle's engines, and what they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import assert_never

import torch

from riformer_deploy.backends.base import Batches, Contestant, Lineup, Runtime, Skipped
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.input_adapter import fed
from riformer_deploy.backends.onnxruntime import CUDA_PROVIDER
from riformer_deploy.backends.onnxruntime_cuda import CudaOnnxRuntime
from riformer_deploy.backends.pytorch_cuda import CompileMode, CudaPyTorchRuntime
from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.backends.tensorrt import EngineRuntime
from riformer_deploy.bundle.artifacts import LoweringRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.engine_metadata import Backend, EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version, require
from riformer_deploy.common.enums import Baselines, DeviceLayer, Precision, Role, RuntimeKind
from riformer_deploy.common.errors import BundleError
from riformer_deploy.export.config import torch_dtype
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.system.cuda_driver import query_driver
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.preflight import Mismatch, preflight_here, require_fit
from riformer_deploy.trt.runtime_cache import runtime_cache_of


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """How engines are run.

    Attributes:
        layer: Where device memory comes from.
        cuda_graphs: Which ways of launching take part: plain, as a CUDA graph, or both.
        required: Whether a bundle without any engine is an error.
        baselines: Which ways of running the weights with PyTorch they are measured against.
    """

    layer: DeviceLayer = DeviceLayer.CUDA_PYTHON
    cuda_graphs: tuple[bool, ...] = (False, True)
    required: bool = False
    baselines: Baselines = Baselines.STRONG


def _lowering_of(bundle: Bundle, engine: EngineArtifact) -> LoweringRecord:
    """How the graph of an engine was lowered; the manifest holds the graph of every engine."""
    return next(g.lowering for g in bundle.manifest.onnx if g.file.sha256 == engine.file.parent_sha256)


DEVICE_LAYERS = {DeviceLayer.CUDA_PYTHON: "cuda.bindings", DeviceLayer.PYCUDA: "pycuda"}


def _findings(bundle: Bundle, engine: EngineArtifact, layer: DeviceLayer) -> tuple[Mismatch, ...]:
    """What keeps an engine from running here with a device layer."""
    package = PACKAGES[DEVICE_LAYERS[layer]]
    found = preflight_here(engine, bundle.place_of(engine.file))
    if installed_version(package.module) is None:
        found += (Mismatch(problem=f"{layer} is not installed.", remedy=f"Run: {package.install_command}."),)
    return found


def _engine(bundle: Bundle, engine: EngineArtifact, options: GpuOptions, *, graphs: bool) -> Contestant:
    path = bundle.place_of(engine.file)

    def start() -> Runtime:
        require_fit(
            engine, _findings(bundle, engine, options.layer)
        )  # the file may have changed since the line-up
        runtime = EngineRuntime(
            path,
            engine.passport,
            load(engine.passport.backend),
            open_device(options.layer),
            cuda_graphs=graphs,
            kept=runtime_cache_of(path, engine.file.sha256),
            sha256=engine.file.sha256,
        )
        return fed(runtime, bundle, _lowering_of(bundle, engine))

    profiles = engine.passport.profiles
    return Contestant(
        name=engine.name + (", CUDA graph" if graphs else ""),
        precision=engine.precision,
        artifact_sha256=engine.file.sha256,
        batches=Batches(ranges=tuple((p.minimum, p.maximum) for p in profiles)),
        proof_batches=tuple(sorted({size for p in profiles for size in (p.minimum, p.optimum, p.maximum)})),
        observable=False,
        open=start,
        runtime=RuntimeKind.TENSORRT,
        file=engine.file.path,
    )


def engines_lineup(bundle: Bundle, options: GpuOptions) -> Lineup:
    """The bundle's engines whose preflight passes, and the others with every reason.

    Args:
        bundle: Whose.
        options: How they are run.

    Raises:
        BundleError: The bundle holds none, and they are required.
        BundleIntegrityError: An engine is not the file that was built.
    """
    if options.required and not bundle.manifest.engines:
        raise BundleError(
            f"The bundle {bundle.directory} holds no TensorRT engine.",
            remedy=f"Build them with `riformer-deploy build {bundle.directory}`.",
        )
    lineup = Lineup()
    for engine in bundle.manifest.engines:
        bundle.path_of(engine.file)
        findings = _findings(bundle, engine, options.layer)
        if findings:
            skipped = Skipped(name=engine.name, reason=" ".join(map(str, findings)))
            lineup += Lineup(skipped=(skipped,))
            continue
        # PyCUDA cannot capture graphs; TensorRT-RTX captures them itself.
        unable = options.layer is DeviceLayer.PYCUDA and engine.passport.backend is Backend.TENSORRT
        for graphs in options.cuda_graphs:
            if graphs and unable:
                skipped = Skipped(name=f"{engine.name}, CUDA graph", reason="PyCUDA captures no CUDA graphs")
                lineup += Lineup(skipped=(skipped,))
            else:
                lineup += Lineup(entered=(_engine(bundle, engine, options, graphs=graphs),))
    return lineup


@dataclass(frozen=True, kw_only=True)
class _TorchBaseline:
    """One way of running the weights with PyTorch on a GPU; ``mode`` None is eager."""

    precision: Precision
    channels_last: bool = False
    mode: CompileMode | None = None
    conv_1x1_as_mm: bool = False

    @property
    def name(self) -> str:
        dtype = str(torch_dtype(self.precision)).removeprefix("torch.")
        parts = [f"PyTorch {dtype}, GPU"]
        parts += ["channels last"] if self.channels_last else []
        parts += ["eager"] if self.mode is None else [f"torch.compile {self.mode} with CUDA graphs"]
        parts += ["1x1 convolutions as matrix products"] if self.conv_1x1_as_mm else []
        return ", ".join(parts)


_FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
_COMPILED = {"channels_last": True, "conv_1x1_as_mm": True}
_QUICK = (
    _TorchBaseline(precision=Precision.FP32),
    _TorchBaseline(precision=Precision.FP32, mode=CompileMode.REDUCE_OVERHEAD, **_COMPILED),
    _TorchBaseline(precision=Precision.FP16, channels_last=True),
    _TorchBaseline(precision=Precision.FP16, mode=CompileMode.REDUCE_OVERHEAD, **_COMPILED),
    _TorchBaseline(precision=Precision.BF16, mode=CompileMode.REDUCE_OVERHEAD, **_COMPILED),
)
_STRONG = (
    *_QUICK,
    _TorchBaseline(precision=Precision.FP16, mode=CompileMode.MAX_AUTOTUNE, **_COMPILED),
)
_ALL = (
    *(
        _TorchBaseline(precision=precision, channels_last=channels_last)
        for precision, channels_last in product(_FLOATS, (False, True))
    ),
    *(
        _TorchBaseline(
            precision=precision, channels_last=channels_last, mode=mode, conv_1x1_as_mm=conv_1x1_as_mm
        )
        for mode, precision, channels_last, conv_1x1_as_mm in product(
            CompileMode, _FLOATS, (False, True), (False, True)
        )
    ),
)


def _torch_baselines(baselines: Baselines) -> tuple[_TorchBaseline, ...]:
    match baselines:
        case Baselines.NONE:
            return ()
        case Baselines.QUICK:
            return _QUICK
        case Baselines.STRONG:
            return _STRONG
        case Baselines.ALL:
            return _ALL
        case _:
            assert_never(baselines)


def _torch_baseline(bundle: Bundle, weights: WeightsArtifact, baseline: _TorchBaseline) -> Contestant:
    """Eager in deploy form, as mmpretrain runs it; compiled in the folded form, which gains most by it."""

    def start() -> Runtime:
        model = stored_model(bundle, weights, torch.float32)
        compiled = baseline.mode is not None
        return CudaPyTorchRuntime(
            fold(model) if compiled else model,
            dtype=torch_dtype(baseline.precision),
            compiled=compiled,
            channels_last=baseline.channels_last,
            mode=baseline.mode or CompileMode.REDUCE_OVERHEAD,
            conv_1x1_as_mm=baseline.conv_1x1_as_mm,
        )

    return Contestant(
        name=baseline.name,
        precision=baseline.precision,
        artifact_sha256=weights.file.sha256,
        open=start,
        role=Role.BASELINE,
    )


def rivals_lineup(bundle: Bundle, options: GpuOptions) -> Lineup:
    """The baselines that engines are measured against; nobody where there is no GPU.

    Args:
        bundle: Whose weights and graphs.
        options: Which of them take part.
    """
    if not query_driver().gpus:
        return Lineup()
    return _pytorch_rivals(bundle, options.baselines) + _onnx_rivals(bundle, options.layer)


def _pytorch_rivals(bundle: Bundle, baselines: Baselines) -> Lineup:
    if not torch.cuda.is_available():
        reason = f"PyTorch {torch.__version__} is built without CUDA, or its CUDA is newer than the driver"
        return Lineup(skipped=(Skipped(name="PyTorch, GPU", reason=reason),))
    weights: Sequence[WeightsArtifact] = bundle.manifest.weights
    deploy = next(item for item in weights if item.form is Form.DEPLOY)
    ways = _torch_baselines(baselines)
    return Lineup(entered=tuple(_torch_baseline(bundle, deploy, way) for way in ways))


def _onnx_rivals(bundle: Bundle, layer: DeviceLayer) -> Lineup:
    title = "ONNX Runtime CUDA"
    if installed_version("onnxruntime") is None:
        return Lineup(skipped=(Skipped(name=title, reason="ONNX Runtime is not installed"),))
    if CUDA_PROVIDER not in require("onnxruntime").get_available_providers():
        reason = "this ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)"
        return Lineup(skipped=(Skipped(name=title, reason=reason),))
    lineup = Lineup()
    for artifact in bundle.manifest.onnx:

        def start(artifact: OnnxArtifact = artifact) -> Runtime:
            runtime = CudaOnnxRuntime(bundle.path_of(artifact.file), open_device(layer))
            return fed(runtime, bundle, artifact.lowering)

        contestant = Contestant(
            name=f"{title} {artifact.precision}",
            precision=artifact.precision,
            artifact_sha256=artifact.file.sha256,
            batches=Batches.of(artifact.batch),
            open=start,
            runtime=RuntimeKind.ONNX_RUNTIME,
            file=artifact.file.path,
        )
        lineup += Lineup(entered=(contestant,))
    return lineup
