"""Contestants on a GPU: the bundle's engines, and what they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from riformer_deploy.architecture import Form
from riformer_deploy.artifacts import LoweringRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundles import Bundle
from riformer_deploy.choices import DeviceLayer, Precision
from riformer_deploy.cuda_driver import query_driver
from riformer_deploy.devices.opening import open_device
from riformer_deploy.entrants import Lineup, fed, stored_model
from riformer_deploy.errors import BundleError
from riformer_deploy.fusion import fold
from riformer_deploy.optional import PACKAGES, installed_version, require
from riformer_deploy.passports import Backend, EngineArtifact
from riformer_deploy.preflight import Mismatch, preflight_here, require_fit
from riformer_deploy.results import Skipped
from riformer_deploy.runtime_caches import runtime_cache_of
from riformer_deploy.runtimes.base import Batches, Contestant, Runtime
from riformer_deploy.runtimes.engine import EngineRuntime
from riformer_deploy.runtimes.ort import CUDA_PROVIDER, OnnxRuntime
from riformer_deploy.runtimes.pytorch import CudaPyTorchRuntime
from riformer_deploy.trt.bindings import load


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """How engines are run.

    Attributes:
        layer: Where device memory comes from.
        cuda_graphs: Which ways of launching take part: plain, as a CUDA graph, or both.
        required: Whether a bundle without any engine is an error.
    """

    layer: DeviceLayer = DeviceLayer.CUDA_PYTHON
    cuda_graphs: tuple[bool, ...] = (False, True)
    required: bool = False


def _lowering_of(bundle: Bundle, engine: EngineArtifact) -> LoweringRecord:
    """How the graph of an engine was lowered; the manifest holds the graph of every engine."""
    return next(g.lowering for g in bundle.manifest.onnx if g.file.sha256 == engine.file.parent_sha256)


_LAYER_PACKAGES = {DeviceLayer.CUDA_PYTHON: "cuda.bindings", DeviceLayer.PYCUDA: "pycuda"}


def _findings(bundle: Bundle, engine: EngineArtifact, layer: DeviceLayer) -> tuple[Mismatch, ...]:
    """What keeps an engine from running here with a device layer."""
    package = PACKAGES[_LAYER_PACKAGES[layer]]
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
class _Rival:
    """One way of running the weights with PyTorch on a GPU."""

    dtype: torch.dtype
    channels_last: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        parts = [f"PyTorch {str(self.dtype).removeprefix('torch.')}, GPU"]
        parts += ["channels last"] if self.channels_last else []
        parts += ["torch.compile with CUDA graphs"] if self.compiled else ["eager"]
        return ", ".join(parts)


_RIVALS = (
    _Rival(dtype=torch.float32),
    _Rival(dtype=torch.float32, channels_last=True),
    _Rival(dtype=torch.float16),
    _Rival(dtype=torch.float16, channels_last=True),
    _Rival(dtype=torch.float32, compiled=True),
    _Rival(dtype=torch.float16, compiled=True),
    _Rival(dtype=torch.float16, channels_last=True, compiled=True),
)


def _rival(bundle: Bundle, weights: WeightsArtifact, rival: _Rival) -> Contestant:
    """Eager in deploy form, as mmpretrain runs it; compiled in the folded form, which gains most by it."""

    def start() -> Runtime:
        model = stored_model(bundle, weights, torch.float32)
        return CudaPyTorchRuntime(
            fold(model) if rival.compiled else model,
            dtype=rival.dtype,
            compiled=rival.compiled,
            channels_last=rival.channels_last,
        )

    return Contestant(
        name=rival.name,
        precision=Precision.FP16 if rival.dtype is torch.float16 else Precision.FP32,
        artifact_sha256=weights.file.sha256,
        open=start,
    )


def rivals_lineup(bundle: Bundle) -> Lineup:
    """What engines are measured against; nobody where there is no GPU.

    Args:
        bundle: Whose weights and graphs.
    """
    if not query_driver().gpus:
        return Lineup()
    return _pytorch_rivals(bundle) + _onnx_rivals(bundle)


def _pytorch_rivals(bundle: Bundle) -> Lineup:
    if not torch.cuda.is_available():
        reason = f"PyTorch {torch.__version__} is built without CUDA, or its CUDA is newer than the driver"
        return Lineup(skipped=(Skipped(name="PyTorch, GPU", reason=reason),))
    weights: Sequence[WeightsArtifact] = bundle.manifest.weights
    deploy = next(item for item in weights if item.form is Form.DEPLOY)
    return Lineup(entered=tuple(_rival(bundle, deploy, rival) for rival in _RIVALS))


def _onnx_rivals(bundle: Bundle) -> Lineup:
    title = "ONNX Runtime CUDA"
    if installed_version("onnxruntime") is None:
        return Lineup(skipped=(Skipped(name=title, reason="ONNX Runtime is not installed"),))
    if CUDA_PROVIDER not in require("onnxruntime").get_available_providers():
        reason = "this ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)"
        return Lineup(skipped=(Skipped(name=title, reason=reason),))
    lineup = Lineup()
    for artifact in bundle.manifest.onnx:

        def start(artifact: OnnxArtifact = artifact) -> Runtime:
            runtime = OnnxRuntime(bundle.path_of(artifact.file), provider=CUDA_PROVIDER)
            return fed(runtime, bundle, artifact.lowering)

        contestant = Contestant(
            name=f"{title} {artifact.precision}",
            precision=artifact.precision,
            artifact_sha256=artifact.file.sha256,
            batches=Batches.of(artifact.batch),
            open=start,
        )
        lineup += Lineup(entered=(contestant,))
    return lineup
