"""From class scores to answers: softmax, the first classes, and the place of the right one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import Candidate, Outputs, Runtime, run_all
from riformer_deploy.common.errors import BundleError, RuntimeFailureError
from riformer_deploy.data.transforms import Images


def logits_of(candidate: Candidate, runtime: Runtime, images: Images) -> NDArray[np.float64]:
    """Scores of any number of images, also from a model that takes batches of one size only.

    Args:
        candidate: The model that gives them.
        runtime: The candidate's, open.
        images: (N, 3, H, W) float32, normalised, N at least 1.

    Returns:
        (N, classes), as the model gave them; logarithms where it gives probabilities.

    Raises:
        BundleError: The model gives no scores of every class.
        RuntimeFailureError: The model cannot run them.
    """
    return _scores(candidate, run_all(runtime, images, candidate.batches))


def _scores(candidate: Candidate, outputs: Outputs) -> NDArray[np.float64]:
    """Logits, or the logarithms of probabilities, which softmax turns back into them."""
    if "logits" in outputs:
        return outputs["logits"].astype(np.float64)
    if "probabilities" in outputs:
        with np.errstate(divide="ignore"):  # a class of probability 0 comes last
            return np.maximum(np.log(outputs["probabilities"].astype(np.float64)), -1e4)
    raise BundleError(
        f"{candidate.name} gives {' and '.join(outputs)}; classes need logits or probabilities.",
        remedy="Export the model with --output-form logits.",
    )


def first_guesses(
    candidate: Candidate, runtime: Runtime, images: Images, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The classes that a model finds likeliest, from logits, probabilities, or the first K that it gives.

    Args:
        candidate: The model.
        runtime: The candidate's, open.
        images: (N, 3, H, W) float32, normalised, N at least 1.
        count: How many; what there is where the model gives fewer.

    Returns:
        Classes and softmax scores, both (N, count), best first.

    Raises:
        BundleError: The model gives no scores of classes.
        RuntimeFailureError: The model cannot run them, or its scores are not finite.
    """
    outputs = run_all(runtime, images, candidate.batches)
    if {"scores", "labels"} <= outputs.keys():
        given = outputs["scores"].astype(np.float64)
        if not np.isfinite(given).all():
            raise _not_finite()
        return outputs["labels"].astype(np.int64)[:, :count], given[:, :count]
    scores = softmax(_scores(candidate, outputs))
    order = first_classes(scores, count)
    return order, np.take_along_axis(scores, order, axis=1)


def _not_finite() -> RuntimeFailureError:
    return RuntimeFailureError(
        "The model's class scores are not finite numbers.",
        remedy="See `riformer-deploy verify parity` for which artifact overflows, and where.",
    )


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores that add up to 1, in float64.

    Args:
        logits: (N, classes).

    Raises:
        RuntimeFailureError: A value is not finite, so that there are no scores.
    """
    if not np.isfinite(logits).all():
        raise _not_finite()
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    scores: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return scores


_DECIMALS = 6


def first_class(scores: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The first class of each row and how sure the model is of it.

    Args:
        scores: (N, classes), as :func:`logits_of` gives them.

    Returns:
        Classes and their softmax probabilities, to six decimals, both (N,); -1 and 0 where a row is not
        finite.
    """
    finite = np.isfinite(scores).all(axis=1)
    chances = softmax(np.where(finite[:, None], scores, 0.0)).max(axis=1)
    classes: NDArray[np.int64] = np.where(finite, scores.argmax(axis=1), -1)
    return classes, np.where(finite, chances.round(_DECIMALS), 0.0)


def first_classes(scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """The classes with the highest scores, best first; of equal ones the lower number goes first.

    Args:
        scores: (N, classes).
        count: How many; all where there are fewer.

    Returns:
        (N, count).
    """
    order: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order


def place_of(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of the right class among the scores, 0 for the first; ties as in :func:`first_classes`.

    Args:
        scores: (N, classes); in a row that is not finite the right class comes after all others.
        labels: (N,).
    """
    own = scores[np.arange(len(scores)), labels][:, None]
    lower = np.arange(scores.shape[1])[None, :] < labels[:, None]
    places: NDArray[np.int64] = ((scores > own) | ((scores == own) & lower)).sum(axis=1)
    places[~np.isfinite(scores).all(axis=1)] = scores.shape[1]
    return places
