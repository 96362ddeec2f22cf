"""What quantising each layer alone costs, and which layers to exclude so that a gate holds."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.common.enums import InputForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import Progress, Step, silent
from riformer_deploy.data.calibration import batch_size
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.metrics import decisions, deviation
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.resolving import resolve_lowering

_WORST_DB = -200.0
"""Stands for logits that are not finite, or that differ from logits of zero."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a set of quantised layers costs on some images.

    Attributes:
        sqnr_db: Of the logits against the reference; None where they are equal.
        drop_points: Images whose first class differs from the reference's, in percent.
    """

    sqnr_db: float | None
    drop_points: float


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What quantising one layer alone costs.

    Attributes:
        layer: Its name.
        cost: The cost.
    """

    layer: str
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class SensitivityReport:
    """Every layer, the costliest first.

    Attributes:
        images: Number of images that costs were measured on.
        calibration: What the ranges were calibrated on.
        everything: Cost of quantising every layer.
        layers: Cost of each layer alone.
        random: Whether the images were random, so that costs on real ones are not known.
        warnings: What the user should know of the images.
        precision: What layers were quantised to.
    """

    images: int
    calibration: str
    everything: Cost
    layers: tuple[LayerCost, ...]
    random: bool = False
    warnings: tuple[str, ...] = ()
    precision: Precision = Precision.INT8


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a quantised model must hold to on the calibration images.

    Attributes:
        min_sqnr_db: Least SQNR of the logits.
        max_drop_points: Largest share of changed first classes, in percent.
    """

    min_sqnr_db: float | None = None
    max_drop_points: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop_points is not None and not 0 <= self.max_drop_points <= 100:
            raise OptionError(f"max-drop is a share in percent, got {self.max_drop_points}.")
        if self.min_sqnr_db is not None and not -200 <= self.min_sqnr_db <= 200:
            raise OptionError(f"min-sqnr is in decibels, got {self.min_sqnr_db}.")

    def holds(self, cost: Cost) -> bool:
        """Whether a cost is within the gate."""
        loud = self.min_sqnr_db is None or cost.sqnr_db is None or cost.sqnr_db >= self.min_sqnr_db
        return loud and (self.max_drop_points is None or cost.drop_points <= self.max_drop_points)


@dataclass(frozen=True, kw_only=True)
class QuantizedEvaluator:
    """Measures what quantised layers cost.

    Attributes:
        model: In folded form, float32.
        calibration: Ranges, and the images that they come from.
        config: How to lower, to int8 or fp8.
        preprocessing: The model's.
        images: (N, 3, H, W) float32, normalised.
        reference: Logits (N, classes) of the reference on these images.
    """

    model: RIFormer
    calibration: CalibrationResult
    config: LoweringConfig
    preprocessing: Preprocessing
    images: Images
    reference: NDArray[np.floating]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be quantised."""
        return quantizable(self.model, self.config.precision)

    def cost(self, excluded: frozenset[str]) -> Cost:
        """Cost of quantising everything but ``excluded``."""
        config = dataclasses.replace(
            self.config,
            exclude_layers=tuple(sorted(excluded)),
            io=Precision.FP32,
            input_form=InputForm.NORMALISED,
            output_form=OutputForm.LOGITS,
            out_indices=(),
        )
        lowered = lower(self.model, resolve_lowering(config, self.calibration), self.preprocessing)
        with torch.inference_mode():
            logits = np.concatenate([lowered(part).numpy() for part in _parts(self.images)])
        distance = deviation(self.reference, logits, rtol=0, atol=1)
        choice = decisions(self.reference, logits, rtol=0, atol=0)
        comparable = distance.finite and (distance.relative_l2 is not None or distance.max_abs == 0)
        return Cost(
            sqnr_db=distance.sqnr_db if comparable else _WORST_DB,
            drop_points=100 * choice.flips / choice.images,
        )


def _parts(images: Images) -> Iterator[Tensor]:
    step = batch_size((images.shape[2], images.shape[3]))
    for start in range(0, len(images), step):
        yield torch.from_numpy(images[start : start + step])


def _order(cost: Cost) -> tuple[float, float]:
    """Costliest first."""
    return (float("inf") if cost.sqnr_db is None else cost.sqnr_db, -cost.drop_points)


def rank_layers(evaluator: QuantizedEvaluator, progress: Progress = silent) -> SensitivityReport:
    """Quantise each layer alone and rank the layers by what that costs.

    Args:
        evaluator: What to measure with.
        progress: Called with each layer.
    """
    layers = evaluator.layers
    found = []
    for done, name in enumerate(layers):
        part = f"{name}, layer {done + 1} of {len(layers)}"
        progress(Step("sensitivity", part, done=done, total=len(layers)))
        found.append(LayerCost(layer=name, cost=evaluator.cost(frozenset(layers) - {name})))
    found.sort(key=lambda item: _order(item.cost))
    images = evaluator.calibration.images
    return SensitivityReport(
        images=len(evaluator.images),
        calibration=images.source,
        everything=evaluator.cost(frozenset()),
        layers=tuple(found),
        random=images.random,
        warnings=images.warnings,
        precision=evaluator.config.precision,
    )


def choose_excluded_layers(
    evaluator: QuantizedEvaluator, ranking: Sequence[LayerCost], gate: Gate, progress: Progress = silent
) -> tuple[frozenset[str], Cost]:
    """The costliest layers that must stay in the base precision for a gate to hold.

    Layers are excluded one by one in the order of the ranking until the gate holds.

    Args:
        evaluator: What to measure with.
        ranking: Costliest first.
        gate: What must hold.
        progress: Called with each layer that is excluded.

    Returns:
        The layers to exclude, and the cost that is left; every layer where nothing less will do, and
        then the caller sees by :meth:`Gate.holds` whether even that is enough.
    """
    excluded = frozenset(evaluator.config.exclude_layers)
    cost = evaluator.cost(excluded)
    for item in ranking:
        if gate.holds(cost):
            break
        if item.layer in excluded:
            continue
        progress(f"excluding {item.layer}")
        excluded |= {item.layer}
        cost = evaluator.cost(excluded)
    return excluded, cost


_EVALUATION_IMAGES = 128
"""Calibration images that costs are measured on, at most."""


def evaluator_of(
    model: RIFormer,
    reference: RIFormer,
    record: ModelRecord,
    calibration: CalibrationResult,
    config: LoweringConfig,
) -> QuantizedEvaluator:
    """An evaluator on the calibration images, against the reference in float64.

    Args:
        model: In folded form, float32.
        reference: In training or deploy form.
        record: The model's.
        calibration: The calibration images and what was measured on them.
        config: How to lower, to int8 or fp8.
    """
    images = calibration.images.spread(_EVALUATION_IMAGES)
    wide = copy.deepcopy(reference).double()
    with torch.inference_mode():
        logits = np.concatenate([wide(part.double()).numpy() for part in _parts(images)])
    return QuantizedEvaluator(
        model=model,
        calibration=calibration,
        config=config,
        preprocessing=record.preprocessing,
        images=images,
        reference=logits,
    )
