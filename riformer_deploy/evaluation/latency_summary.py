"""Statistics of raw latencies, and whether they are to be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from riformer_deploy.evaluation.order_stats import median, median_interval, percentile

_UNSTABLE_SPREAD = 0.15
_UNSTABLE_DRIFT = 0.10


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Statistics of one candidate's samples, milliseconds per call.

    Attributes:
        median_ms: Half of the calls were faster.
        ci95_ms: 95 % confidence interval of the median, by order statistics (binomial, no
            assumption on the distribution); None for fewer than 6 samples, which bound none.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        min_ms: The fastest call.
        images_per_s: Batch divided by the median.
    """

    median_ms: float
    ci95_ms: tuple[float, float] | None
    p90_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    images_per_s: float


def summarize(samples_ms: Iterable[float], batch: int) -> LatencySummary:
    """Statistics of raw samples.

    Args:
        samples_ms: At least one, in milliseconds.
        batch: Images per call.
    """
    ordered = sorted(map(float, samples_ms))
    middle = median(ordered)
    return LatencySummary(
        median_ms=middle,
        ci95_ms=median_interval(ordered),
        p90_ms=percentile(ordered, 90),
        p95_ms=percentile(ordered, 95),
        p99_ms=percentile(ordered, 99),
        min_ms=ordered[0],
        images_per_s=1000 * batch / middle,
    )


def instability(samples_ms: Sequence[float]) -> str | None:
    """Why a series of samples is not to be trusted to a few percent, or None.

    Args:
        samples_ms: In the order they were taken; one alone says nothing.
    """
    if len(samples_ms) < 2:
        return None
    ordered = sorted(samples_ms)
    middle, spread = median(ordered), percentile(ordered, 75) - percentile(ordered, 25)
    findings = []
    if spread / middle > _UNSTABLE_SPREAD:
        findings.append(
            f"the middle half of the calls spreads over {100 * spread / middle:.0f} % of the median"
        )
    half = len(samples_ms) // 2
    drift = median(samples_ms[-half:]) / median(samples_ms[:half]) - 1
    if abs(drift) > _UNSTABLE_DRIFT:
        findings.append(
            f"the second half is {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} than the first"
        )
    return "; ".join(findings) or None
