"""Which models a bundle can put to the test: its artifacts, each behind a runtime.

Every contestant is loaded from the bundle's own file when its turn comes, so what is judged is what
is shipped, and one model is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from riformer_deploy.architecture import Form
from riformer_deploy.artifacts import OnnxArtifact, Precision, WeightsArtifact
from riformer_deploy.bundles import Bundle
from riformer_deploy.checkpoints import Checkpoint, load_checkpoint
from riformer_deploy.errors import BundleError, BundleIntegrityError
from riformer_deploy.fusion import fold
from riformer_deploy.images import pixels_of
from riformer_deploy.lowering import lower
from riformer_deploy.model import RIFormer, model_from_state
from riformer_deploy.norms import NormForm
from riformer_deploy.optional import PACKAGES, installed_version, require
from riformer_deploy.plans import InputForm, LoweringPlan, OutputForm
from riformer_deploy.precision import torch_dtype
from riformer_deploy.results import Skipped
from riformer_deploy.runtimes.base import Contestant, Images, Outputs, Runtime
from riformer_deploy.runtimes.openvino import OpenVinoRuntime
from riformer_deploy.runtimes.ort import OnnxRuntime
from riformer_deploy.runtimes.pytorch import PyTorchRuntime


class Group(StrEnum):
    """Kinds of contestants that a command can ask for."""

    TORCH = "torch"
    COMPILED = "compiled"
    ONNX = "onnx"
    OPENVINO = "openvino"
    ENGINE = "engine"


def chosen_groups(
    *, torch: bool, onnx: bool, openvino: bool, engine: bool, compiled: bool
) -> tuple[Group, ...]:
    """The groups that a command line asks for; none named means all.

    Args:
        torch: PyTorch was named.
        onnx: ONNX Runtime was named.
        openvino: OpenVINO was named.
        engine: TensorRT was named.
        compiled: PyTorch, where it takes part, is to be compiled too.
    """
    everything = not (torch or onnx or openvino or engine)
    groups = []
    if torch or everything:
        groups += [Group.TORCH, Group.COMPILED] if compiled else [Group.TORCH]
    if onnx or everything:
        groups.append(Group.ONNX)
    if openvino or everything:
        groups.append(Group.OPENVINO)
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
        model = _stored_model(bundle, weights, torch.float64)
        return PyTorchRuntime(
            model, outputs=("logits", "probabilities", "features"), forward=model.all_outputs
        )

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


class _Fed:
    """A runtime that takes images in another form than the normalised float32 that others take.

    What the last images became is remembered, so that a benchmark's timed calls do not convert.
    """

    def __init__(self, runtime: Runtime, convert: Callable[[Images], NDArray[Any]]) -> None:
        self._runtime, self._convert = runtime, convert
        self._last: tuple[Images, NDArray[Any]] | None = None

    def _converted(self, images: Images) -> NDArray[Any]:
        if self._last is None or self._last[0] is not images:
            self._last = images, self._convert(images)
        return self._last[1]

    def run(self, images: Images) -> Outputs:
        return self._runtime.run(self._converted(images))

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        return self._runtime.tap(self._converted(images), tensors)

    def close(self) -> None:
        self._last = None
        self._runtime.close()


def _fed(runtime: Runtime, bundle: Bundle, artifact: OnnxArtifact) -> Runtime:
    """The runtime, given what the graph's input takes."""
    preprocessing = bundle.manifest.model.preprocessing
    if artifact.lowering.input_form == InputForm.UINT8:
        return _Fed(runtime, lambda images: pixels_of(images, preprocessing))
    if artifact.lowering.io is Precision.FP16:
        return _Fed(runtime, lambda images: images.astype(np.float16))
    return runtime


def _graph(
    bundle: Bundle, artifact: OnnxArtifact, backend: str, load: Callable[[Path], Runtime]
) -> Contestant:
    return Contestant(
        name=f"{backend} {artifact.precision}",
        precision=artifact.precision,
        artifact_sha256=artifact.file.sha256,
        batch=artifact.batch,
        open=lambda: _fed(load(bundle.path_of(artifact.file)), bundle, artifact),
    )


def _lowered(bundle: Bundle, artifact: OnnxArtifact) -> Contestant:
    """The module that a floating-point graph was exported from, rebuilt from the bundle's record."""
    weights, record = bundle.manifest.weights[0], artifact.lowering
    plan = LoweringPlan(
        base=torch_dtype(artifact.precision),
        norm=NormForm(record.norm),
        float32_blocks=frozenset(record.float32_blocks),
        io=torch_dtype(record.io),
        input_form=InputForm(record.input_form),
        output_form=OutputForm(record.output_form),
        topk=record.topk or 1,
    )

    def start() -> Runtime:
        folded = fold(_stored_model(bundle, weights, torch.float32))
        model = lower(folded, plan, bundle.manifest.model.preprocessing)
        taken = torch.uint8 if plan.input_form is InputForm.UINT8 else plan.io
        runtime = PyTorchRuntime(model, outputs=model.output_names, dtype=taken)
        return _fed(runtime, bundle, artifact)

    return Contestant(
        name=f"PyTorch {artifact.precision}, lowered",
        precision=artifact.precision,
        artifact_sha256=weights.file.sha256,
        batch=None,
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
        BundleError: Engines were asked for; this version of the toolkit builds none.
    """
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
        for artifact in bundle.manifest.onnx:
            if artifact.precision is Precision.BF16:  # ONNX Runtime has no CPU kernels for it
                found.append(_lowered(bundle, artifact))
                continue
            found.append(
                _graph(bundle, artifact, "ONNX Runtime", lambda path: OnnxRuntime(path, threads=threads))
            )
    if Group.OPENVINO in groups and installed_version("openvino") is not None:
        found += [
            _graph(bundle, artifact, "OpenVINO", lambda path: OpenVinoRuntime(path, threads=threads))
            for artifact in bundle.manifest.onnx
            if not _beyond_openvino(artifact)
        ]
    return found


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


def _beyond_openvino(artifact: OnnxArtifact) -> bool:
    """OpenVINO 2026.4 compiles int8 convolutions among half-precision ones, but does not run them."""
    return artifact.precision is Precision.INT8 and artifact.lowering.base is Precision.FP16


def left_out(bundle: Bundle, groups: Sequence[Group]) -> list[Skipped]:
    """Artifacts of the groups asked for that this machine cannot run, with the reason.

    Args:
        bundle: Whose.
        groups: Which kinds.
    """
    absent = Group.OPENVINO in groups and installed_version("openvino") is None
    command = PACKAGES["openvino"].install_command
    found = []
    for artifact in bundle.manifest.onnx:
        half = artifact.precision is Precision.BF16
        if half and Group.ONNX in groups:
            reason = "ONNX Runtime has no CPU kernels for bfloat16; the module it was exported from took part"
            found.append(Skipped(name=f"ONNX Runtime {artifact.precision}", reason=reason))
        if absent:
            reason = f"OpenVINO is not installed ({command})" + "; the file itself has not been run" * half
            found.append(Skipped(name=f"OpenVINO {artifact.precision}", reason=reason))
        elif Group.OPENVINO in groups and _beyond_openvino(artifact):
            reason = "OpenVINO cannot run int8 convolutions whose base is fp16; fp32 as the base runs"
            found.append(Skipped(name=f"OpenVINO {artifact.precision}", reason=reason))
    return found
