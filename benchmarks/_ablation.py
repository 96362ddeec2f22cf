"""What fusing and folding bring: the same weights in training, deploy and folded form."""

from __future__ import annotations

from pathlib import Path

import torch
from _common import naive_export

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.pytorch_cuda import CudaPyTorchRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.backends.tensorrt import EngineRuntime

# Internals: forms are built without this toolkit's own export, which api always runs.
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, EngineMetadata, TensorRTFlavor
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import DeviceLayer, Precision, Processor, Role, RuntimeKind
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold, fuse
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.builder import BuildRequest, build_plan


def _forms(bundle: Bundle) -> dict[str, RIFormer]:
    model = model_of(bundle.path_of(bundle.manifest.reference.file))
    return {"training": model, "deploy": fuse(model), "folded": fold(model)}


def modules(bundle: Bundle, *, compiled: bool) -> list[Candidate]:
    """Every form in half precision and channels last, by PyTorch.

    Args:
        bundle: Holds weights in training form.
        compiled: Compiled, with CUDA graphs, instead of eager.
    """
    return [_as_module(*item, compiled=compiled) for item in _forms(bundle).items()]


def engines(bundle: Bundle, scratch: Path, backend: TensorRTFlavor, batch: int) -> list[Candidate]:
    """Every form in float32 as ``torch.onnx.export`` makes it, without this toolkit, as an engine.

    Args:
        bundle: Holds weights in training form.
        scratch: For graphs and plans.
        backend: The flavor.
        batch: The largest batch.
    """
    side_px = bundle.manifest.model.preprocessing.crop_px[0]
    forms = _forms(bundle).items()
    return [_as_engine(name, form, scratch, backend, batch, side_px) for name, form in forms]


def _as_module(name: str, form: RIFormer, *, compiled: bool) -> Candidate:
    """The runtime gets a copy, which it moves and casts."""

    def start() -> Runtime:
        copy = model_from_state(form.architecture, form.form, form.state_dict())
        return CudaPyTorchRuntime(copy, dtype=torch.float16, compiled=compiled, channels_last=True)

    title = f"PyTorch float16, channels last, {name} form, {'compiled' if compiled else 'eager'}"
    config = CandidateConfig(
        runtime=RuntimeKind.PYTORCH,
        precision=Precision.FP16,
        processor=Processor.GPU,
        form=form.form,
        compiled=compiled,
        channels_last=True,
        label=title,
    )
    return Candidate(config=config, artifact_sha256="", open=start, role=Role.BASELINE)


def _as_engine(
    name: str, form: RIFormer, scratch: Path, backend: TensorRTFlavor, batch: int, side_px: int
) -> Candidate:
    trt = load(backend)
    path = naive_export(form, scratch / f"{name}.{backend}.onnx", side_px)
    profile, settings = BatchProfile(minimum=1, optimum=batch, maximum=batch), BuildSettings()
    request = BuildRequest(
        onnx=path,
        input_name="images",
        sample_shape=(3, side_px, side_px),
        profiles=(profile,),
        settings=settings,
    )
    built = build_plan(trt, request, lambda _step: None, lambda _severity, _text: None)
    plan = path.with_suffix(".engine")
    plan.write_bytes(built.plan)
    metadata = EngineMetadata(
        backend=backend, backend_version=trt.version, backend_cuda=trt.cuda, onnx_sha256="",
        weights_sha256="", driver_cuda=None, gpu=None, gpu_compute_capability=None, profiles=(profile,),
        settings=settings, build_ms=built.build_ms, network_layers={}, engine_layers=None,
    )  # fmt: skip

    def start() -> Runtime:
        return EngineRuntime(plan, metadata, trt, open_device(DeviceLayer.CUDA_PYTHON), cuda_graphs=True)

    title = f"{backend.label} fp32, {name} form, plain export, CUDA graph"
    config = CandidateConfig(
        runtime=RuntimeKind.TENSORRT,
        precision=Precision.FP32,
        processor=Processor.GPU,
        form=form.form,
        flavor=backend,
        cuda_graph=True,
        label=title,
    )
    return Candidate(config=config, artifact_sha256="", open=start)
