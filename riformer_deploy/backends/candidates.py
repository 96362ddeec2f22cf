"""The models of a bundle that can be compared and timed: its artifacts, each behind a runtime.

Every candidate is loaded from the bundle's own file when its turn comes, so what is measured is what
is shipped, and one model is in memory at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import torch

from riformer_deploy.backends.base import BatchRange, Candidate, CandidateSet, Runtime, Skipped
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.gpu_candidates import GpuOptions, baseline_candidates, engine_candidates
from riformer_deploy.backends.input_adapter import adapt_input
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.bundle.artifacts import OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version, require
from riformer_deploy.common.enums import (
    Group,
    InputForm,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
    Role,
    RuntimeKind,
)
from riformer_deploy.export.config import LoweringPlan, torch_dtype
from riformer_deploy.export.lowering import lower
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.reparameterize import fold

_LOG = logging.getLogger(__name__)


def _torch(
    bundle: Bundle, weights: WeightsArtifact, form: Form, *, compiled: bool, threads: int | None
) -> Candidate:
    def start() -> Runtime:
        model = stored_model(bundle, weights, torch.float32)
        return PyTorchRuntime(
            fold(model) if form is Form.FOLDED else model, compiled=compiled, threads=threads
        )

    return Candidate(
        config=CandidateConfig(
            runtime=RuntimeKind.PYTORCH, precision=Precision.FP32, form=form, compiled=compiled
        ),
        artifact_sha256=weights.file.sha256,
        open=start,
        role=Role.BASELINE,
        file=weights.file.path,
    )


def _graph(
    bundle: Bundle, artifact: OnnxArtifact, runtime: RuntimeKind, load: Callable[[Path], Runtime]
) -> Candidate:
    return Candidate(
        config=CandidateConfig(runtime=runtime, precision=artifact.precision),
        artifact_sha256=artifact.file.sha256,
        batches=BatchRange.of(artifact.batch),
        open=lambda: adapt_input(load(bundle.path_of(artifact.file)), bundle, artifact.lowering),
        file=artifact.file.path,
    )


def _lowered(bundle: Bundle, artifact: OnnxArtifact) -> Candidate:
    """The module that a floating-point graph was exported from, rebuilt from the bundle's record."""
    weights, record = bundle.manifest.reference, artifact.lowering
    plan = LoweringPlan(
        base=torch_dtype(artifact.precision),
        norm=NormForm(record.norm),
        norm_io=torch_dtype(record.norm_io),
        mlp=MlpForm(record.mlp),
        norm2=Norm2Form(record.norm2),
        float32_blocks=frozenset(record.float32_blocks),
        io=torch_dtype(record.io),
        input_form=InputForm(record.input_form),
        output_form=OutputForm(record.output_form),
        topk=record.topk or 1,
    )

    def start() -> Runtime:
        folded = fold(stored_model(bundle, weights, torch.float32))
        model = lower(folded, plan, bundle.manifest.model.preprocessing)
        taken = torch.uint8 if plan.input_form is InputForm.UINT8 else plan.io
        runtime = PyTorchRuntime(model, outputs=model.output_names, dtype=taken)
        return adapt_input(runtime, bundle, record)

    return Candidate(
        config=CandidateConfig(runtime=RuntimeKind.PYTORCH, precision=artifact.precision),
        artifact_sha256=weights.file.sha256,
        open=start,
        file=artifact.file.path,
    )


def _torch_candidates(bundle: Bundle, threads: int | None, *, folded: bool) -> CandidateSet:
    weights = bundle.manifest.weights
    found = [_torch(bundle, item, item.form, compiled=False, threads=threads) for item in weights]
    if folded:
        found.append(_torch(bundle, bundle.manifest.reference, Form.FOLDED, compiled=False, threads=threads))
    return CandidateSet(candidates=tuple(found))


def _onnx_candidates(bundle: Bundle, threads: int | None) -> CandidateSet:
    selected = CandidateSet()
    for artifact in bundle.manifest.onnx:
        if artifact.precision is Precision.BF16:
            reason = "ONNX Runtime has no CPU kernels for bfloat16; the module it was exported from took part"
            config = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=artifact.precision)
            skipped = Skipped(config=config, reason=reason)
            selected += CandidateSet(candidates=(_lowered(bundle, artifact),), skipped=(skipped,))
        else:
            kind = RuntimeKind.ONNX_RUNTIME
            run = _graph(bundle, artifact, kind, lambda path: OnnxRuntime(path, threads=threads))
            selected += CandidateSet(candidates=(run,))
    return selected


def _openvino_candidates(bundle: Bundle, threads: int | None) -> CandidateSet:
    selected = CandidateSet()
    absent = installed_version("openvino") is None
    for artifact in bundle.manifest.onnx:
        config = CandidateConfig(runtime=RuntimeKind.OPENVINO, precision=artifact.precision)
        if absent:
            unrun = "; the file itself has not been run" if artifact.precision is Precision.BF16 else ""
            reason = f"OpenVINO is not installed ({PACKAGES['openvino'].install_command}){unrun}"
            selected += CandidateSet(skipped=(Skipped(config=config, reason=reason),))
        elif artifact.precision is Precision.INT8 and artifact.lowering.base is Precision.FP16:
            # OpenVINO 2026.4 compiles int8 convolutions among half-precision ones, but does not run them.
            reason = "OpenVINO cannot run int8 convolutions whose base is fp16; fp32 as the base runs"
            selected += CandidateSet(skipped=(Skipped(config=config, reason=reason),))
        else:
            kind = RuntimeKind.OPENVINO
            run = _graph(bundle, artifact, kind, lambda path: OpenVinoRuntime(path, threads=threads))
            selected += CandidateSet(candidates=(run,))
    return selected


def select_candidates(
    bundle: Bundle,
    groups: Sequence[Group],
    *,
    threads: int | None = None,
    folded: bool = True,
    gpu: GpuOptions | None = None,
) -> CandidateSet:
    """The bundle's models of the groups asked for, and those of them that this machine cannot run.

    Args:
        bundle: Holds the artifacts.
        groups: Which kinds; ``TORCH`` gives every stored form and the folded one, eager.
        folded: Whether ``TORCH`` includes the folded form, which no file of the bundle holds for PyTorch.
        threads: CPU threads of each; None leaves the choice to the backend.
        gpu: How engines are run; None means the defaults.

    Raises:
        BundleError: The bundle holds no engine where ``gpu`` requires one.
    """
    selected = CandidateSet()
    for group in dict.fromkeys(groups):
        match group:
            case Group.TORCH:
                selected += _torch_candidates(bundle, threads, folded=folded)
            case Group.COMPILED:
                reference = bundle.manifest.reference
                compiled = _torch(bundle, reference, Form.FOLDED, compiled=True, threads=threads)
                selected += CandidateSet(candidates=(compiled,))
            case Group.ONNX:
                selected += _onnx_candidates(bundle, threads)
            case Group.OPENVINO:
                selected += _openvino_candidates(bundle, threads)
            case Group.ENGINE:
                selected += engine_candidates(bundle, gpu or GpuOptions())
            case Group.GPU:
                selected += baseline_candidates(bundle, gpu or GpuOptions())
            case _:
                assert_never(group)
    return selected


def require_backends(groups: Sequence[Group]) -> None:
    """See that what runs the groups asked for by name is installed.

    Args:
        groups: Which kinds.

    Raises:
        MissingDependencyError: It is not.
    """
    if Group.ONNX in groups:
        require("onnxruntime")
    if Group.OPENVINO in groups:
        require("openvino")
