"""The GPU suite's targets beside what was measured; what was not measured is said."""

from __future__ import annotations

from _common import target
from _forms import DIGITS
from _suite import Suite, Timed

from riformer_deploy.choices import Precision, Role
from riformer_deploy.records import JsonValue
from riformer_deploy.results import ParityResult, Status, Timing

NOT_MEASURED = "not measured"


def _medians(timed: Timed, timing: Timing, role: Role, precision: Precision) -> dict[str, float]:
    return {
        series.name: series.summary.median_ms
        for series in timed.result.samples
        if series.timing is timing
        and timed.candidates[series.name].role is role
        and timed.candidates[series.name].precision is precision
    }


def _half(suite: Suite, batch: int) -> Timed | None:
    """The measurement of half precision at a batch size, of the first variant."""
    return next(
        (t for t in suite.latency if t.precision is Precision.FP16 and t.result.inputs.batches == (batch,)),
        None,
    )


def _speed_up(timed: Timed | None) -> JsonValue:
    """Kernels of the strongest baseline over those of the fastest engine, both in half precision."""
    if timed is None:
        return NOT_MEASURED
    ours = _medians(timed, Timing.COMPUTE, Role.CANDIDATE, Precision.FP16)
    theirs = _medians(timed, Timing.COMPUTE, Role.BASELINE, Precision.FP16)
    if not ours or not theirs:
        return NOT_MEASURED
    return target(min(theirs.values()) / min(ours.values()), 1.5, at_most=False)


def _held(proof: ParityResult | None) -> JsonValue:
    if proof is None or not proof.candidates:
        return NOT_MEASURED
    return proof.status is Status.PASSED


def targets_of(suite: Suite, batches: tuple[int, ...]) -> dict[str, JsonValue]:
    """Every target.

    Args:
        suite: What was found.
        batches: The smallest and the largest batch size.
    """
    targets: dict[str, JsonValue] = {
        f"batch {batch}: kernels of the strongest PyTorch fp16 over those of the fastest fp16 engine": _speed_up(
            _half(suite, batch)
        )
        for batch in dict.fromkeys(batches)
    }
    targets["parity of the stand-in's engines of the digits, plain and as a CUDA graph"] = _held(
        suite.standin.get(DIGITS)
    )
    targets["parity of everything that runs the digits on this GPU"] = _held(suite.parity.get(DIGITS))
    return targets
