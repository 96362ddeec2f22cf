"""Latencies set side by side: the strongest baseline of each batch size, and what beats it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from riformer_deploy.common.enums import Precision, Role
from riformer_deploy.evaluation.latency_rounds import Ratio, ratio_of_series
from riformer_deploy.evaluation.latency_summary import instability
from riformer_deploy.evaluation.results import LatencyResult, LatencySamples, Status, Timing


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


def ratio_of(baseline: LatencySamples, sample: LatencySamples, repeats: int) -> Ratio | None:
    """How many times faster a model is, taken within each round, with its interval.

    None where either has a warning other than that it spreads or drifts, which the interval tells: such as
    that its times contain the host's.

    Args:
        baseline: What it is compared with.
        sample: Of the same batch size and timing.
        repeats: Timed calls of each turn, of their result.
    """
    if not comparable(baseline) or not comparable(sample):
        return None
    return ratio_of_series(baseline.samples_ms, sample.samples_ms, repeats)


def comparable(sample: LatencySamples) -> bool:
    """Whether a series has no warning other than that it spreads or drifts, which intervals tell."""
    return sample.warning in {None, instability(sample.samples_ms)}


_SLOWER = 0.97


@dataclass(frozen=True, kw_only=True)
class SlowerPrecision:
    """A precision that is slower than float32 in the same runtime, so that it gains nothing here.

    Attributes:
        sample: Its series.
        ratio: How many times as fast as float32 it is; the whole interval is below 1.
    """

    sample: LatencySamples
    ratio: Ratio


def slower_precisions(result: LatencyResult, batch: int, timing: Timing) -> tuple[SlowerPrecision, ...]:
    """Lower precisions that are slower than float32 in the same runtime, by more than 3 % and not by chance.

    Args:
        result: Latencies.
        batch: Images per call.
        timing: What was timed.
    """
    series = [
        s for s in result.samples if (s.batch, s.timing) == (batch, timing) and s.role is Role.CANDIDATE
    ]
    full = {
        replace(s.config, precision=Precision.FP32): s for s in series if s.config.precision is Precision.FP32
    }
    found = []
    for sample in series:
        own = full.get(replace(sample.config, precision=Precision.FP32))
        ratio = None if own is None or own is sample else ratio_of(own, sample, result.repeats)
        if ratio is not None and ratio.ci95 is not None and ratio.ci95[1] < 1 and ratio.value < _SLOWER:
            found.append(SlowerPrecision(sample=sample, ratio=ratio))
    return tuple(found)


def _fastest(samples: Iterable[LatencySamples]) -> LatencySamples | None:
    return min(samples, key=lambda sample: sample.summary.median_ms, default=None)


def strongest_baseline(result: LatencyResult, batch: int, timing: Timing) -> LatencySamples | None:
    """The baseline with the least median that was measured so, or one that is proven to be faster, or None.

    Medians drift with the machine: one that is faster within the rounds, with the whole interval, is stronger
    though its median is not less.

    Args:
        result: Latencies.
        batch: Images per call.
        timing: What was timed.
    """
    baselines = [s for s in result.samples if (s.batch, s.timing, s.role) == (batch, timing, Role.BASELINE)]
    best = _fastest(baselines)
    for sample in sorted(baselines, key=lambda s: s.summary.median_ms):
        if best is None or len(sample.samples_ms) != len(best.samples_ms):
            continue
        ratio = ratio_of(best, sample, result.repeats)
        if ratio is not None and ratio.decided and ratio.value > 1:
            best = sample
    return best


def compare_latency(result: LatencyResult) -> tuple[LatencyComparison, ...]:
    """One comparison a batch size: by kernels with a cold cache, or, where nobody has those, by the call.

    A candidate is compared by kernels if one has them, since whole calls depend on the host. One that
    failed parity is the fastest only where all did.

    Args:
        result: Latencies.
    """
    found = []
    for batch in dict.fromkeys(sample.batch for sample in result.samples):
        of_batch = [sample for sample in result.samples if sample.batch == batch]
        candidates = [s for s in of_batch if s.role is Role.CANDIDATE] or of_batch
        candidates = [s for s in candidates if s.parity is not Status.FAILED] or candidates
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
