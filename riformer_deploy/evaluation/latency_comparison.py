"""Latencies set side by side: the strongest baseline of each batch size, and what beats it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from riformer_deploy.common.enums import Role
from riformer_deploy.evaluation.results import LatencyResult, LatencySamples, Timing


@dataclass(frozen=True, kw_only=True)
class LatencyComparison:
    """The fastest model of one batch size beside what it is to be measured against.

    Attributes:
        batch: Images per call.
        timing: What was compared.
        fastest: The fastest candidate, or, where there is none, baseline.
        baseline: The strongest baseline; None where none was measured.
        throughput_images_per_s: Of the fastest, inferences back to back; None where that was not measured, or
            not reliably.
    """

    batch: int
    timing: Timing
    fastest: LatencySamples
    baseline: LatencySamples | None
    throughput_images_per_s: float | None

    @property
    def speed_up(self) -> float | None:
        """The baseline's median over the fastest's; None without one, or where a figure is not reliable."""
        if self.baseline is None or self.baseline is self.fastest:
            return None
        return speed_up(self.baseline, self.fastest)


def speed_up(baseline: LatencySamples, sample: LatencySamples) -> float | None:
    """How many times faster a model is by the median; None where either has a warning.

    Args:
        baseline: What it is compared with.
        sample: Of the same batch size and timing.
    """
    if baseline.warning or sample.warning:
        return None
    return baseline.summary.median_ms / sample.summary.median_ms


def _fastest(samples: Iterable[LatencySamples]) -> LatencySamples | None:
    return min(samples, key=lambda sample: sample.summary.median_ms, default=None)


def strongest_baseline(result: LatencyResult, batch: int, timing: Timing) -> LatencySamples | None:
    """The fastest baseline that was measured so, or None.

    Args:
        result: Latencies.
        batch: Images per call.
        timing: What was timed.
    """
    return _fastest(
        s for s in result.samples if (s.batch, s.timing, s.role) == (batch, timing, Role.BASELINE)
    )


def compare_latency(result: LatencyResult) -> tuple[LatencyComparison, ...]:
    """One comparison a batch size: by kernels with a cold cache, or, where nobody has those, by the call.

    A candidate is compared by kernels if one has them, since whole calls depend on the host.

    Args:
        result: Latencies.
    """
    found = []
    for batch in dict.fromkeys(sample.batch for sample in result.samples):
        of_batch = [sample for sample in result.samples if sample.batch == batch]
        candidates = [s for s in of_batch if s.role is Role.CANDIDATE] or of_batch
        timing = Timing.COMPUTE if any(s.timing is Timing.COMPUTE for s in candidates) else Timing.CALL
        fastest = _fastest(sample for sample in candidates if sample.timing is timing)
        if fastest is None:
            continue
        its_own = [s for s in of_batch if (s.config, s.timing) == (fastest.config, Timing.COMPUTE_WARM)]
        warm = [s for s in its_own if s.warning is None]
        found.append(
            LatencyComparison(
                batch=batch,
                timing=timing,
                fastest=fastest,
                baseline=strongest_baseline(result, batch, timing),
                throughput_images_per_s=warm[0].summary.images_per_s if warm else None,
            )
        )
    return tuple(found)
