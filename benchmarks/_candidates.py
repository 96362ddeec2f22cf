"""What the GPU suite's result says of what it timed."""

from __future__ import annotations

from _suite import CandidateFacts

from riformer_deploy.backends.base import Candidate
from riformer_deploy.common.enums import Precision


def by_name(candidates: list[Candidate]) -> dict[str, tuple[Candidate, CandidateFacts]]:
    """Candidates of no bundle, with what the result says of them."""
    return {candidate.name: (candidate, facts_of(candidate, None)) for candidate in candidates}


def facts_of(candidate: Candidate, bundle: str | None, *, is_engine: bool = False) -> CandidateFacts:
    """What the result says of a candidate.

    Args:
        candidate: What is timed.
        bundle: The bundle that its artifact is from, or None.
        is_engine: Whether it runs a TensorRT engine.
    """
    return CandidateFacts(
        precision=candidate.precision, role=candidate.role, bundle=bundle, is_engine=is_engine
    )


def belongs_beside(offered: Precision, measured: Precision) -> bool:
    """Whether a baseline of a precision belongs beside candidates of another: float32 beside float32 only."""
    return (offered is Precision.FP32) == (measured is Precision.FP32)
