"""How far one set of outputs is from another: numbers only, no verdicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.evaluation.metric_records import Decisions, Deviation


def _norm(values: NDArray[np.float64]) -> float:
    """Euclidean norm that neither overflows nor underflows."""
    scale = _scale(values)
    return scale * float(np.linalg.norm(values / scale))


def _scale(values: NDArray[np.float64]) -> float:
    """A power of two near the largest value, so that dividing by it is exact."""
    return float(2.0 ** np.frexp(np.abs(values).max())[1])


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a / _scale(a), b / _scale(b)
    return float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))


def deviation(
    reference: NDArray[np.floating], got: NDArray[np.floating], *, rtol: float, atol: float
) -> Deviation:
    """Measure ``got`` against ``reference``.

    Args:
        reference: Finite values, any shape.
        got: The same shape.
        rtol: Relative part of the tolerance.
        atol: Absolute part of the tolerance.

    Raises:
        ValueError: The shapes differ or the reference is not finite.
    """
    if reference.shape != got.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, got {got.shape}")
    true, other = reference.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    if not reference.size:
        raise ValueError("nothing to compare: the reference is empty")
    if not np.isfinite(true).all():
        raise ValueError("the reference holds values that are not finite")
    if not np.isfinite(other).all():
        return Deviation(
            finite=False, max_abs=None, max_relative=None, relative_l2=None, sqnr_db=None, cosine=None,
            elementwise_used=None,
        )  # fmt: skip
    error = np.abs(other - true)
    norm, other_norm, noise = _norm(true), _norm(other), _norm(error)
    largest = float(np.abs(true).max())
    allowed = atol + rtol * np.abs(true)
    if (error > 0)[allowed == 0].any():
        used = None
    else:
        used = float((error / np.where(allowed == 0, 1.0, allowed)).max())
    relative = noise / norm if norm else None
    return Deviation(
        finite=True,
        max_abs=float(error.max(initial=0.0)),
        max_relative=float(error.max(initial=0.0)) / largest if largest else None,
        relative_l2=relative,
        sqnr_db=-20 * float(np.log10(relative)) if relative else None,
        cosine=_cosine(true, other) if norm and other_norm else None,
        elementwise_used=used,
    )


def decisions(
    reference: NDArray[np.floating], got: NDArray[np.floating], *, rtol: float, atol: float
) -> Decisions:
    """Compare first classes.

    Args:
        reference: Scores (N, classes), finite, N at least 1.
        got: Scores (N, classes); a row that is not finite counts as flipped.
        rtol: Relative part of the tolerance that decides which margins are real.
        atol: Absolute part.
    """
    if reference.shape != got.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, got {got.shape}")
    if not reference.size:
        raise ValueError("nothing to compare: the reference is empty")
    if not np.isfinite(reference).all():
        raise ValueError("the reference holds values that are not finite")
    flipped = reference.argmax(axis=1) != got.argmax(axis=1)
    flipped |= ~np.isfinite(got).all(axis=1)
    if reference.shape[1] > 1:
        top = np.sort(reference.astype(np.float64), axis=1)[:, -2:]
        margin = top[:, 1] - top[:, 0]
        decided = margin > 2 * (atol + rtol * np.abs(top).max(axis=1))
    else:
        decided = np.ones(len(reference), dtype=bool)
    return Decisions(
        images=len(reference),
        top1_agreement=float(1 - flipped.mean()),
        flips=int(flipped.sum()),
        decided_flips=int((flipped & decided).sum()),
    )
