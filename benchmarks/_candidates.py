"""What the GPU suite times."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.backends.base import Candidate
from riformer_deploy.common.enums import Precision


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is timed, and whose it is.

    Attributes:
        candidate: What is timed.
        bundle: The bundle that its artifact is from, or None.
    """

    candidate: Candidate
    bundle: str | None


def baselines_of(candidates: list[Candidate]) -> list[Entry]:
    """Candidates of no bundle."""
    return [Entry(candidate=candidate, bundle=None) for candidate in candidates]


def belongs_beside(offered: Precision, measured: Precision) -> bool:
    """Whether a baseline of a precision belongs beside candidates of another: float32 beside float32 only."""
    return (offered is Precision.FP32) == (measured is Precision.FP32)
