"""Opens what PyTorch runs of a bundle: imported when the first such candidate is opened."""

from __future__ import annotations

from functools import partial

import torch

from riformer_deploy.backends.base import Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.input_adapter import adapt_input
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.pytorch_cuda import CudaPyTorchRuntime
from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.bundle.artifacts import OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import (
    CompileMode,
)
from riformer_deploy.export.layers import torch_dtype
from riformer_deploy.export.lowering import lower
from riformer_deploy.model.architecture import LAST_STAGE, Form, map_name
from riformer_deploy.model.reparameterize import fold


def open_reference(bundle: Bundle, weights: WeightsArtifact) -> Runtime:
    """Weights in the form that they are stored in, in float64, with every output that a graph may give.

    Args:
        bundle: Holds the weights.
        weights: One of its files.

    Raises:
        BundleIntegrityError: The file was changed.
    """
    maps = bundle.manifest.out_indices
    model = stored_model(bundle, weights, torch.float64, out_indices=(*maps, LAST_STAGE))
    return PyTorchRuntime(
        model,
        outputs=("logits", "probabilities", "features", *map(map_name, maps)),
        forward=partial(model.all_outputs, maps=maps),
    )


def open_weights(
    bundle: Bundle, weights: WeightsArtifact, form: Form, *, compiled: bool, threads: int | None
) -> Runtime:
    """Weights in float32 on the CPU.

    Args:
        bundle: Holds the weights.
        weights: One of its files.
        form: Their own form, or folded.
        compiled: Run them through ``torch.compile``.
        threads: CPU threads; None leaves the choice to PyTorch.

    Raises:
        BundleIntegrityError: The file was changed.
        RuntimeFailureError: PyTorch cannot prepare the model.
    """
    model = stored_model(bundle, weights, torch.float32)
    return PyTorchRuntime(fold(model) if form is Form.FOLDED else model, compiled=compiled, threads=threads)


def open_lowered(bundle: Bundle, artifact: OnnxArtifact) -> Runtime:
    """The module that a floating-point graph was exported from, rebuilt from the bundle's record.

    Args:
        bundle: Holds the weights.
        artifact: The graph.

    Raises:
        BundleIntegrityError: The weights' file was changed.
    """
    indices = (*artifact.lowering.out_indices, LAST_STAGE)
    folded = fold(stored_model(bundle, bundle.manifest.reference, torch.float32, out_indices=indices))
    model = lower(folded, artifact.lowering, bundle.manifest.model.preprocessing)
    runtime = PyTorchRuntime(model, outputs=model.output_names, dtype=model.input_dtype)
    return adapt_input(runtime, bundle, artifact.lowering)


def open_on_gpu(bundle: Bundle, weights: WeightsArtifact, way: CandidateConfig) -> Runtime:
    """Weights on the GPU.

    Args:
        bundle: Holds the weights.
        weights: One of its files.
        way: The form, the precision, and how PyTorch compiles it, if at all.

    Raises:
        BundleIntegrityError: The file was changed.
        RuntimeFailureError: PyTorch cannot prepare the model.
    """
    model = stored_model(bundle, weights, torch.float32)
    return CudaPyTorchRuntime(
        fold(model) if way.form is Form.FOLDED else model,
        dtype=torch_dtype(way.precision),
        compiled=way.compiled,
        channels_last=way.channels_last,
        mode=way.mode or CompileMode.REDUCE_OVERHEAD,
        conv_1x1_as_mm=way.conv_1x1_as_mm,
    )


def gpu_problem() -> str | None:
    """Why PyTorch cannot use the GPU; None where it can."""
    if torch.cuda.is_available():
        return None
    return f"PyTorch {torch.__version__} is built without CUDA, or its CUDA is newer than the driver"
