"""What a comparison found, as records."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.evaluation.latency_rounds import Ratio
from riformer_deploy.evaluation.results import Status, Timing


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """A file that is not the same in both.

    Attributes:
        path: Its name.
        before_sha256: In the first; None where it is new.
        after_sha256: In the second; None where it is gone.
    """

    path: str
    before_sha256: str | None
    after_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class ParityChange:
    """One way of running one artifact, against the reference of its own bundle.

    Attributes:
        name: What tables call it.
        before: Verdict in the first; None where there is none.
        after: Verdict in the second.
        before_sqnr_db: Least SQNR of its outputs; None where nothing differs or nothing was measured.
        after_sqnr_db: As before.
    """

    name: str
    before: Status | None
    after: Status | None
    before_sqnr_db: float | None
    after_sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class AccuracyChange:
    """Top-1 of one artifact in both.

    Attributes:
        name: What tables call it.
        before_percent: Top-1 in the first.
        after_percent: Top-1 in the second.
        drop_points: How much lower the second is, percentage points.
        drop_ci95_points: 95 % interval: Agresti and Min's where paired, else Newcombe's hybrid score interval
            (Statistics in Medicine 17, 1998, method 10).
        p_value: McNemar's exact, of no difference; None where not paired.
        paired: Whether both were measured on the same pictures, whose answers both hold.
    """

    name: str
    before_percent: float
    after_percent: float
    drop_points: float
    drop_ci95_points: tuple[float, float]
    p_value: float | None
    paired: bool


@dataclass(frozen=True, kw_only=True)
class LatencyChange:
    """One series in both.

    Attributes:
        name: What tables call it.
        batch: Images per call.
        timing: What was timed.
        before_ms: Median in the first.
        after_ms: Median in the second.
        slowdown: Second over first: above 1 is slower. Interval by bootstrap of both medians, since the
            two were not measured in the same rounds.
    """

    name: str
    batch: int
    timing: Timing
    before_ms: float
    after_ms: float
    slowdown: Ratio


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """What changed from the first to the second.

    Attributes:
        before: The first: a bundle or a result.
        after: The second.
        files: Files that differ, where both are bundles.
        parity: Ways of running artifacts that either has a verdict on.
        accuracy: Artifacts that both were measured of.
        latency: Series that both have.
        notes: What was not compared, and why.
        failures: Why the gates do not hold; each in one sentence.
        status: Failed where there are any.
    """

    before: str
    after: str
    files: tuple[FileChange, ...]
    parity: tuple[ParityChange, ...]
    accuracy: tuple[AccuracyChange, ...]
    latency: tuple[LatencyChange, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]
    status: Status
