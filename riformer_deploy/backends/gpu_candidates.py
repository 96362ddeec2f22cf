"""Candidates on a GPU: the bundle's engines, and what they are measured against."""

from __future__ import annotations

from riformer_deploy.backends.base import BatchRange, Candidate, CandidateSet, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.backends.input_adapter import adapt_input
from riformer_deploy.backends.onnxruntime import CUDA_PROVIDER
from riformer_deploy.backends.onnxruntime_cuda import CudaOnnxRuntime
from riformer_deploy.backends.pytorch_candidates import pytorch_baselines
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.backends.tensorrt import EngineRuntime
from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact, TensorRTFlavor
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version, require
from riformer_deploy.common.enums import (
    DeviceLayer,
    Processor,
    RuntimeKind,
)
from riformer_deploy.common.errors import BundleError
from riformer_deploy.system.cuda_driver import query_driver
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.mismatch import Mismatch
from riformer_deploy.trt.preflight import preflight_here, require_fit
from riformer_deploy.trt.runtime_cache import runtime_cache_of


def _lowering_of(bundle: Bundle, engine: EngineArtifact) -> LoweringConfig:
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


def config_of(engine: EngineArtifact, *, graphs: bool) -> CandidateConfig:
    """What an engine is as a candidate, plain or launched as a CUDA graph."""
    return CandidateConfig(
        runtime=RuntimeKind.TENSORRT,
        precision=engine.precision,
        processor=Processor.GPU,
        flavor=engine.metadata.backend,
        cuda_graph=graphs,
    )


def _engine(bundle: Bundle, engine: EngineArtifact, options: GpuOptions, *, graphs: bool) -> Candidate:
    path = bundle.place_of(engine.file)

    def start() -> Runtime:
        require_fit(
            engine, _findings(bundle, engine, options.layer)
        )  # the file may have changed since the selection
        runtime = EngineRuntime(
            path,
            engine.metadata,
            load(engine.metadata.backend),
            open_device(options.layer),
            cuda_graphs=graphs,
            # in the folder itself, wherever the plan lies until an interrupted write is finished
            kept=runtime_cache_of((bundle.base or bundle.directory) / engine.file.path, engine.file.sha256),
            sha256=engine.file.sha256,
        )
        return adapt_input(runtime, bundle, _lowering_of(bundle, engine))

    profiles = engine.metadata.profiles
    return Candidate(
        config=config_of(engine, graphs=graphs),
        artifact_sha256=engine.file.sha256,
        batches=BatchRange(ranges=tuple((p.minimum, p.maximum) for p in profiles)),
        parity_batches=tuple(sorted({size for p in profiles for size in (p.minimum, p.optimum, p.maximum)})),
        observable=False,
        open=start,
        file=engine.file.path,
    )


def engine_candidates(bundle: Bundle, options: GpuOptions) -> CandidateSet:
    """The bundle's engines whose preflight passes, and the others with every reason.

    Args:
        bundle: Holds the engines.
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
    selected = CandidateSet()
    for engine in bundle.manifest.engines:
        bundle.path_of(engine.file)
        findings = _findings(bundle, engine, options.layer)
        if findings:
            config = config_of(engine, graphs=False)
            skipped = Skipped(config=config, reason=" ".join(map(str, findings)))
            selected += CandidateSet(skipped=(skipped,))
            continue
        # PyCUDA cannot capture graphs; TensorRT-RTX captures them itself.
        unable = options.layer is DeviceLayer.PYCUDA and engine.metadata.backend is TensorRTFlavor.TENSORRT
        for graphs in options.cuda_graphs:
            if graphs and unable:
                config = config_of(engine, graphs=True)
                skipped = Skipped(config=config, reason="PyCUDA captures no CUDA graphs")
                selected += CandidateSet(skipped=(skipped,))
            else:
                selected += CandidateSet(candidates=(_engine(bundle, engine, options, graphs=graphs),))
    return selected


def baseline_candidates(bundle: Bundle, options: GpuOptions) -> CandidateSet:
    """The baselines that engines are measured against; none where there is no GPU.

    Args:
        bundle: Holds the weights and graphs.
        options: Which of them take part.
    """
    if not query_driver().gpus:
        return CandidateSet()
    return pytorch_baselines(bundle, options.baselines) + _onnx_baselines(bundle, options.layer)


def _without_cuda_provider() -> str | None:
    """Why ONNX Runtime cannot run on a GPU here, or None where it can."""
    if installed_version("onnxruntime") is None:
        return "ONNX Runtime is not installed"
    if CUDA_PROVIDER not in require("onnxruntime").get_available_providers():
        return "this ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)"
    return None


def _onnx_config(artifact: OnnxArtifact) -> CandidateConfig:
    return CandidateConfig(
        runtime=RuntimeKind.ONNX_RUNTIME, precision=artifact.precision, processor=Processor.GPU
    )


def _onnx_baselines(bundle: Bundle, layer: DeviceLayer) -> CandidateSet:
    if (reason := _without_cuda_provider()) is not None:
        graphs = bundle.manifest.onnx
        return CandidateSet(skipped=tuple(Skipped(config=_onnx_config(g), reason=reason) for g in graphs))
    selected = CandidateSet()
    for artifact in bundle.manifest.onnx:

        def start(artifact: OnnxArtifact = artifact) -> Runtime:
            path = bundle.place_of(artifact.file)
            runtime = CudaOnnxRuntime(path, open_device(layer), read=lambda: bundle.graph(artifact))
            return adapt_input(runtime, bundle, artifact.lowering)

        candidate = Candidate(
            config=_onnx_config(artifact),
            artifact_sha256=artifact.file.sha256,
            batches=BatchRange.of(artifact.batch),
            open=start,
            file=artifact.file.path,
        )
        selected += CandidateSet(candidates=(candidate,))
    return selected
