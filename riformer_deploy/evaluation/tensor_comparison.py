"""Holds arrays to a tolerance: outputs, stages, and the labels of a model that gives its first classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import Outputs
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.evaluation.metrics import decisions, deviation
from riformer_deploy.evaluation.results import OutputParity, StageParity, status
from riformer_deploy.evaluation.tolerances import Tolerance, output_used, stage_used


def _with_choices(reference: Outputs, got: Outputs) -> tuple[Outputs, Outputs]:
    """Where a model gives its first K classes, what to compare with what.

    ``scores``: its scores beside the reference's K largest. ``labels``: the reference's own scores of the
    classes that it named beside the reference's K largest.
    """
    if "labels" not in got:
        return reference, got
    probabilities, labels = reference["probabilities"], got["labels"].astype(np.int64)
    count = labels.shape[1]
    valid = ((labels >= 0) & (labels < probabilities.shape[1])).all() and all(
        len(set(row)) == count for row in labels.tolist()
    )
    named = np.take_along_axis(probabilities, labels, axis=1) if valid else np.full(labels.shape, np.nan)
    largest = -np.sort(-probabilities, axis=1)[:, :count]
    return {"scores": largest, "labels": largest}, {"scores": got["scores"], "labels": named}


def _tolerance(reference: NDArray[np.floating], tolerance: Tolerance) -> tuple[float, float]:
    """Rtol and atol: the tolerance's, or four standard deviations of the noise that its SQNR allows."""
    if tolerance.elementwise is not None:
        return tolerance.elementwise
    rms = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    allowed = 4 * rms * 10 ** (-(tolerance.min_sqnr_db or 0.0) / 20)
    return 0.0, allowed or float(np.finfo(np.float32).tiny)


def compare_outputs(reference: Outputs, got: Outputs, tolerance: Tolerance) -> tuple[OutputParity, ...]:
    """Every output of a candidate against the reference.

    Args:
        reference: ``logits``, ``probabilities`` and ``features``, and maps.
        got: Some of these, or ``scores`` and ``labels``.
        tolerance: The limits; maps, like stages, are held to the relative L2 error.

    Raises:
        RuntimeFailureError: An output is none of these, or of another shape.
    """
    reference, got = _with_choices(reference, got)
    compared = []
    for name in got:
        if name not in reference:
            raise RuntimeFailureError(
                f"The model has an output {name} that the reference cannot be asked for."
            )
        if got[name].shape != reference[name].shape:
            raise RuntimeFailureError(
                f"Output {name} has shape {got[name].shape}, the reference's has {reference[name].shape}."
            )
        rtol, atol = _tolerance(reference[name], tolerance)
        distance = deviation(reference[name], got[name], rtol=rtol, atol=atol)
        choice = decisions(reference[name], got[name], rtol=rtol, atol=atol) if name == "logits" else None
        used = output_used(name, distance, tolerance)
        within = used is not None and used <= 1
        compared.append(
            OutputParity(
                name=name,
                deviation=distance,
                decisions=choice,
                tolerance_used=used,
                status=status(passed=within and (choice is None or choice.decided_flips == 0)),
            )
        )
    return tuple(compared)


def compare_taps(
    reference: Outputs, got: Outputs, tolerance: Tolerance, stages: Mapping[str, int]
) -> dict[str, StageParity]:
    """Every block's activations against the reference's, by name of the block.

    Args:
        reference: Activations by name of the block.
        got: The candidate's, under the same names.
        tolerance: The limits.
        stages: The stage that each block belongs to, from 1.
    """
    compared = {}
    for name, true in reference.items():
        rtol, atol = _tolerance(true, tolerance)
        distance = deviation(true, got[name], rtol=rtol, atol=atol)
        used = stage_used(distance, tolerance)
        passed = used is not None and used <= 1
        compared[name] = StageParity(
            stage=stages[name], tensor=name, deviation=distance, status=status(passed=passed)
        )
    return compared
