"""What contestants are made of: the bundle's weights as models, and graphs fed what they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from riformer_deploy.backends.base import (
    Contestant,
    DeviceTimed,
    DeviceTimes,
    GraphLaunched,
    Images,
    Outputs,
    Runtime,
    WarmTime,
)
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.bundle.artifacts import LoweringRecord, WeightsArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import Checkpoint, load_checkpoint
from riformer_deploy.common.enums import InputForm, Precision
from riformer_deploy.common.errors import BundleIntegrityError
from riformer_deploy.data.transforms import pixels_of
from riformer_deploy.evaluation.results import Skipped
from riformer_deploy.model.network import RIFormer, model_from_state


def stored_model(bundle: Bundle, weights: WeightsArtifact, dtype: torch.dtype) -> RIFormer:
    """The model of one of the bundle's weights files, which is the recorded one while it is read.

    Args:
        bundle: Whose.
        weights: Which.
        dtype: Of the parameters.

    Raises:
        BundleIntegrityError: The file was changed meanwhile.
    """
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
        path: Any checkpoint that :func:`~riformer_deploy.checkpoints.load.load_checkpoint` accepts.
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
        model = stored_model(bundle, weights, torch.float64)
        return PyTorchRuntime(
            model, outputs=("logits", "probabilities", "features"), forward=model.all_outputs
        )

    return Contestant(
        name=f"PyTorch float64, {weights.form} form",
        precision=Precision.FP32,
        artifact_sha256=weights.file.sha256,
        open=start,
    )


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """Who takes part.

    Attributes:
        entered: Contestants, in order.
        skipped: Artifacts that cannot, with the reason.
    """

    entered: tuple[Contestant, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __add__(self, other: Lineup) -> Lineup:
        return Lineup(entered=self.entered + other.entered, skipped=self.skipped + other.skipped)


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

    @property
    def graph_states(self) -> Mapping[int, GraphState]:
        return self._runtime.graph_states if isinstance(self._runtime, GraphLaunched) else {}

    def close(self) -> None:
        self._last = None
        self._runtime.close()


class _FedOnDevice(_Fed):
    """Likewise, for a runtime that keeps time on a device."""

    def __init__(
        self, runtime: Runtime, timed: DeviceTimed, convert: Callable[[Images], NDArray[Any]]
    ) -> None:
        super().__init__(runtime, convert)
        self._timed = timed

    def device_times(self, images: Images) -> DeviceTimes:
        return self._timed.device_times(self._converted(images))

    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        return self._timed.warm_time(self._converted(images), inferences)


def fed(runtime: Runtime, bundle: Bundle, lowering: LoweringRecord) -> Runtime:
    """A runtime of a graph as one that takes normalised float32 images.

    Args:
        runtime: Takes what the graph's input takes.
        bundle: Whose.
        lowering: How the graph was lowered.
    """
    preprocessing = bundle.manifest.model.preprocessing
    if lowering.input_form == InputForm.UINT8:

        def convert(images: Images) -> NDArray[Any]:
            return pixels_of(images, preprocessing)
    elif lowering.io is Precision.FP16:

        def convert(images: Images) -> NDArray[Any]:
            return images.astype(np.float16)
    else:
        return runtime
    return (
        _FedOnDevice(runtime, runtime, convert)
        if isinstance(runtime, DeviceTimed)
        else _Fed(runtime, convert)
    )
