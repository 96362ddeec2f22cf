"""Which models a bundle can put to the test: its artifacts, each behind a runtime.

Every contestant is loaded from the bundle's own file when its turn comes, so what is judged is what
is shipped, and one model is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import torch

from riformer_deploy.architecture import Form
from riformer_deploy.artifacts import OnnxArtifact, Precision, WeightsArtifact
from riformer_deploy.bundles import Bundle
from riformer_deploy.checkpoints import Checkpoint, load_checkpoint
from riformer_deploy.errors import BundleError, BundleIntegrityError
from riformer_deploy.fusion import fold
from riformer_deploy.model import RIFormer, model_from_state
from riformer_deploy.runtimes.base import Contestant, Runtime
from riformer_deploy.runtimes.ort import OnnxRuntime
from riformer_deploy.runtimes.pytorch import PyTorchRuntime


class Group(StrEnum):
    """Kinds of contestants that a command can ask for."""

    TORCH = "torch"
    COMPILED = "compiled"
    ONNX = "onnx"
    ENGINE = "engine"
    OPENVINO = "openvino"


def chosen_groups(*, torch: bool, onnx: bool, engine: bool, compiled: bool) -> tuple[Group, ...]:
    """The groups that a command line asks for; none named means all.

    Args:
        torch: PyTorch was named.
        onnx: ONNX Runtime was named.
        engine: TensorRT was named.
        compiled: PyTorch, where it takes part, is to be compiled too.
    """
    everything = not (torch or onnx or engine)
    groups = []
    if torch or everything:
        groups += [Group.TORCH, Group.COMPILED] if compiled else [Group.TORCH]
    if onnx or everything:
        groups.append(Group.ONNX)
    if engine:
        groups.append(Group.ENGINE)
    return tuple(groups)


def _stored_model(bundle: Bundle, weights: WeightsArtifact, dtype: torch.dtype) -> RIFormer:
    """The model of one of the bundle's weights files, which is the recorded one while it is read."""
    checkpoint = load_checkpoint(bundle.path_of(weights.file))
    if checkpoint.sha256 != weights.file.sha256:
        raise BundleIntegrityError(f"{checkpoint.path} was changed while it was being used.")
    return _model(checkpoint, dtype)


def _model(checkpoint: Checkpoint, dtype: torch.dtype) -> RIFormer:
    state = {key: value.to(dtype) for key, value in checkpoint.state.items()}
    return model_from_state(checkpoint.architecture, checkpoint.form, state)


def model_of(path: Path, dtype: torch.dtype = torch.float32) -> RIFormer:
    """The model of a checkpoint file, in the form that it is stored in.

    Args:
        path: Any checkpoint that :func:`~riformer_deploy.checkpoints.load_checkpoint` accepts.
        dtype: Of the parameters.

    Raises:
        CheckpointError: As ``load_checkpoint``.
    """
    return _model(load_checkpoint(path), dtype)


def reference(bundle: Bundle) -> Contestant:
    """What everything is compared with: the bundle's first weights, in float64.

    Args:
        bundle: Its first weights are the training form, or the deploy form where the checkpoint
            held no other.
    """
    weights = bundle.manifest.weights[0]

    def start() -> Runtime:
        return PyTorchRuntime(_stored_model(bundle, weights, torch.float64))

    return Contestant(
        name=f"PyTorch float64, {weights.form} form",
        precision=Precision.FP32,
        artifact_sha256=weights.file.sha256,
        batch=None,
        open=start,
    )


def _torch(
    bundle: Bundle, weights: WeightsArtifact, form: Form, *, compiled: bool, threads: int | None
) -> Contestant:
    def start() -> Runtime:
        model = _stored_model(bundle, weights, torch.float32)
        return PyTorchRuntime(
            fold(model) if form is Form.FOLDED else model, compiled=compiled, threads=threads
        )

    return Contestant(
        name=f"PyTorch float32, {form} form" + (", torch.compile" if compiled else ""),
        precision=Precision.FP32,
        artifact_sha256=weights.file.sha256,
        batch=None,
        open=start,
    )


def _onnx(bundle: Bundle, artifact: OnnxArtifact, threads: int | None) -> Contestant:
    def start() -> Runtime:
        return OnnxRuntime(bundle.path_of(artifact.file), threads=threads)

    return Contestant(
        name=f"ONNX Runtime {artifact.precision}",
        precision=artifact.precision,
        artifact_sha256=artifact.file.sha256,
        batch=artifact.batch,
        open=start,
    )


def contestants(
    bundle: Bundle, groups: Sequence[Group], *, threads: int | None = None, folded: bool = True
) -> list[Contestant]:
    """The bundle's models of the groups asked for.

    Args:
        bundle: Whose.
        groups: Which kinds; ``TORCH`` gives every stored form and the folded one, eager.
        folded: Whether ``TORCH`` includes the folded form, which no file of the bundle holds for PyTorch.
        threads: CPU threads of each; None leaves the choice to the backend.

    Raises:
        BundleError: Engines or OpenVINO were asked for; this version of the toolkit has neither.
    """
    if Group.OPENVINO in groups:
        raise BundleError(
            "This version of the toolkit cannot run OpenVINO.",
            remedy="Run the bundle's other models: torch or onnx.",
        )
    if Group.ENGINE in groups:
        raise BundleError(
            f"The bundle {bundle.directory} holds no TensorRT engine, and this version builds none yet.",
            remedy="Time its other models with --torch or --onnx.",
        )
    weights = bundle.manifest.weights
    found: list[Contestant] = []
    if Group.TORCH in groups:
        found += [_torch(bundle, item, item.form, compiled=False, threads=threads) for item in weights]
    if Group.TORCH in groups and folded:
        found.append(_torch(bundle, weights[0], Form.FOLDED, compiled=False, threads=threads))
    if Group.COMPILED in groups:
        found.append(_torch(bundle, weights[0], Form.FOLDED, compiled=True, threads=threads))
    if Group.ONNX in groups:
        found += [_onnx(bundle, artifact, threads) for artifact in bundle.manifest.onnx]
    return found
