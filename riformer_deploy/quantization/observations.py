"""What calibration images show of a folded model; each pass over them is made once, when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from riformer_deploy.common.errors import CalibrationError
from riformer_deploy.common.progress import Progress, Step, silent
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.blocks import PatchEmbed
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.observers import (
    BatchSource,
    Histogram,
    ObservedTensor,
    equalizer,
    histograms,
)
from riformer_deploy.quantization.overflow import measure_abs_max


def _equalized(name: str) -> bool:
    """Downsampling layers: they read the residual stream, whose channels differ most in range."""
    return name.startswith("backbone.network.") and name.endswith(".proj")


def _residual_tensors(model: RIFormer) -> dict[str, ObservedTensor]:
    """Inputs and results of each block's additions, and what each embedding begins the stream with."""
    found = {}
    for block in (name for stage in model.architecture.block_names for name in stage):
        found[f"{block}.stream"] = ObservedTensor(module=f"{block}.norm2")
        found[f"{block}.branch"] = ObservedTensor(module=f"{block}.mlp.fc2", result=True)
        found[f"{block}.result"] = ObservedTensor(module=block, result=True)
    for name, module in model.named_modules():
        if isinstance(module, PatchEmbed):
            found[f"{name}.result"] = ObservedTensor(module=f"{name}.proj", result=True)
    return found


class Observations:
    """A model's values on images; the model must stay as it is.

    Args:
        model: In folded form, float32.
        images: What to run.
        progress: Called with each batch.
        several: Many calibrations are going to be derived: look at residual additions in every pass, so that
            whoever asks for them needs no pass of his own.

    Attributes:
        model: As given.
        images: As given.
        residual_tensors: Where the tensors of residual additions are, by name.
    """

    def __init__(
        self, model: RIFormer, images: CalibrationSet, progress: Progress = silent, *, several: bool = False
    ) -> None:
        self.model, self.images = model, images
        self.residual_tensors: Mapping[str, ObservedTensor] = _residual_tensors(model)
        self._progress, self._several = progress, several
        self._abs_max: dict[tuple[bool, bool], tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
        self._histograms: dict[tuple[bool, bool], dict[str, Histogram]] = {}

    def abs_max(
        self, *, products: bool = False, branches: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Largest absolute values, as :func:`~riformer_deploy.quantization.overflow.measure_abs_max`.

        Args:
            products: As there.
            branches: As there.

        Raises:
            CalibrationError: The model overflows float32 on these images.
        """
        if (products, branches) not in self._abs_max:
            found = measure_abs_max(
                self.model,
                self._batches("largest values"),
                quantizable(self.model),
                products=products,
                branches=branches,
            )
            endless = [name for name, top in found[1].items() if not bool(torch.isfinite(top).all())]
            if endless:
                raise CalibrationError(
                    "The model overflows float32 on the calibration images, so no ranges can be chosen.",
                    details=[f"input of {name}" for name in endless],
                    remedy="Check the checkpoint's weights; values this large come of a diverged training.",
                )
            self._abs_max[products, branches] = found
        return self._abs_max[products, branches]

    @property
    def _any_abs_max(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Largest values, whatever else was looked at in their pass."""
        return next(iter(self._abs_max.values())) if self._abs_max else self.abs_max()

    def equalizers(self) -> dict[str, Tensor]:
        """What the channels of equalised inputs are divided by, by layer, each (in_channels,).

        Raises:
            CalibrationError: As :meth:`abs_max`.
        """
        modules = dict(self.model.named_modules())
        _, largest = self._any_abs_max
        return {name: equalizer(modules[name], top) for name, top in largest.items() if _equalized(name)}

    def histograms(self, *, equalize: bool, residual: bool) -> dict[str, Histogram]:
        """Histograms of what layers take; and of the tensors of residual additions, where they were seen.

        Args:
            equalize: Of downsampling layers' inputs as :meth:`equalizers` divides them.
            residual: Residual additions have to be there.

        Raises:
            CalibrationError: As :meth:`abs_max`.
        """
        residual = residual or self._several
        if (equalize, residual) not in self._histograms:
            abs_max, largest = self._any_abs_max
            places = self.residual_tensors if residual else {}
            tops = {
                name: abs_max[place.module if place.result else f"{place.module}.input"].reshape(1)
                for name, place in places.items()
            }
            self._histograms[equalize, residual] = histograms(
                self.model,
                largest | tops,
                self._batches("histograms"),
                self.equalizers() if equalize else {},
                places,
            )
        return self._histograms[equalize, residual]

    def _batches(self, text: str) -> BatchSource:
        """The images' batches; progress is called with each."""

        def batches() -> Iterator[Tensor]:
            done, total = 0, self.images.count
            for batch in self.images.batches():
                part = f"{text}: {done} of {total} images"
                self._progress(Step("calibrating", part, done=done, total=total, series=text))
                yield torch.from_numpy(batch)
                done += len(batch)

        return batches
