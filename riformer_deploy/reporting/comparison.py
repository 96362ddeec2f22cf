"""Two bundles, or two results, set side by side: what changed, and whether it may."""

from __future__ import annotations

import math
from dataclasses import dataclass

from riformer_deploy.common.errors import OptionError
from riformer_deploy.evaluation.accuracy_results import ArtifactAccuracy
from riformer_deploy.evaluation.bootstrap import ratio_of_medians
from riformer_deploy.evaluation.proportion_stats import mcnemar_exact, paired_drop
from riformer_deploy.evaluation.results import CandidateParity, LatencySamples, Status
from riformer_deploy.reporting.comparison_records import (
    AccuracyChange,
    ComparisonReport,
    FileChange,
    LatencyChange,
    ParityChange,
)
from riformer_deploy.reporting.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What may change.

    Attributes:
        max_slowdown_percent: How much slower a series may become; None for no gate.
        max_drop_points: How much top-1 may drop, percentage points; None for no gate.
        across_machines: Compare latencies of different machines, too.
    """

    max_slowdown_percent: float | None = None
    max_drop_points: float | None = None
    across_machines: bool = False

    def __post_init__(self) -> None:
        limits = {"--max-slowdown": self.max_slowdown_percent, "--max-drop": self.max_drop_points}
        if wrong := [
            f"{name} must be a finite number of at least 0, got {value}"
            for name, value in limits.items()
            if value is not None and not 0 <= value < math.inf
        ]:
            raise OptionError("This is no gate.", details=wrong)


def compare_evidence(before: Evidence, after: Evidence, options: CompareOptions) -> ComparisonReport:
    """Set two bundles or results side by side, and hold the gates.

    A gate that has nothing to compare does not hold. Parity that held before and does not now fails without
    any gate. A slowdown counts where it is larger than allowed and its whole interval is slower; a drop of
    top-1, as in ``verify accuracy``, where the measured one is larger than allowed.

    Args:
        before: The first.
        after: The second.
        options: What may change.
    """
    named = (("A", before), ("B", after))
    parity = _parity(before, after)
    accuracy = _accuracy(before, after)
    latency, notes = _latency(before, after, options)
    failures = [
        f"{item.name}: parity held before and fails now"
        for item in parity
        if (item.before, item.after) == (Status.PASSED, Status.FAILED)
    ]
    most = options.max_slowdown_percent
    if most is not None:
        failures += [] if latency else ["--max-slowdown: there are no latencies to compare"]
        failures += [
            f"{item.name}, {item.timing}, batch {item.batch}: {100 * (item.slowdown.value - 1):+.1f} % time, "
            f"{most:g} % more are allowed"
            for item in latency
            if item.slowdown.value > 1 + most / 100 and (item.slowdown.ci95 or (math.inf,))[0] > 1
        ]
    allowed = options.max_drop_points
    if allowed is not None:
        failures += [] if accuracy else ["--max-drop: there are no accuracies to compare"]
        failures += [
            f"{item.name}: top-1 is {item.drop_points:.3f} points lower, {allowed:g} are allowed"
            for item in accuracy
            if item.drop_points > allowed
        ]
    return ComparisonReport(
        before=str(before.path),
        after=str(after.path),
        files=_files(before, after),
        parity=parity,
        accuracy=accuracy,
        latency=latency,
        notes=(
            *notes,
            *_measured_once(before, after),
            *(f"not counted in {name}: {text}" for name, one in named for text in one.ignored),
        ),
        failures=tuple(failures),
        status=Status.FAILED if failures else Status.PASSED,
    )


def _files(before: Evidence, after: Evidence) -> tuple[FileChange, ...]:
    if before.manifest is None or after.manifest is None:
        return ()
    old = {record.path: record.sha256 for record in before.manifest.files}
    new = {record.path: record.sha256 for record in after.manifest.files}
    return tuple(
        FileChange(path=path, before_sha256=old.get(path), after_sha256=new.get(path))
        for path in dict.fromkeys((*old, *new))
        if old.get(path) != new.get(path)
    )


def _parity(before: Evidence, after: Evidence) -> tuple[ParityChange, ...]:
    found = []
    for config in dict.fromkeys(c.config for c in (*before.candidates, *after.candidates)):
        old, new = before.parity_of(config), after.parity_of(config)
        found.append(
            ParityChange(
                name=config.name,
                before=old.status if old else None,
                after=new.status if new else None,
                before_sqnr_db=_sqnr(old),
                after_sqnr_db=_sqnr(new),
            )
        )
    return tuple(found)


def _sqnr(candidate: CandidateParity | None) -> float | None:
    values = [item.deviation.sqnr_db for item in candidate.outputs] if candidate else []
    return min((value for value in values if value is not None), default=None)


def _accuracy(before: Evidence, after: Evidence) -> tuple[AccuracyChange, ...]:
    if before.accuracy is None or after.accuracy is None:
        return ()
    old = {item.config: item for item in before.accuracy.artifacts}
    pictures = [[(a.picture, a.label) for a in one.answers] for one in (before, after)]
    same = (
        before.accuracy.dataset.identity == after.accuracy.dataset.identity
        and bool(pictures[0])
        and pictures[0] == pictures[1]
    )
    return tuple(
        _paired(old[item.config], item, before, after) if same else _unpaired(old[item.config], item)
        for item in after.accuracy.artifacts
        if item.config in old
    )


def _paired(
    old: ArtifactAccuracy, new: ArtifactAccuracy, before: Evidence, after: Evidence
) -> AccuracyChange:
    pairs = [
        (one.right.get(old.name), other.right.get(new.name))
        for one, other in zip(before.answers, after.answers, strict=True)
    ]
    if any(None in pair for pair in pairs):
        return _unpaired(old, new)
    lost, gained = pairs.count((True, False)), pairs.count((False, True))
    drop, low, high = paired_drop(lost, gained, len(pairs))
    return AccuracyChange(
        name=new.name,
        before_percent=old.top1.percent,
        after_percent=new.top1.percent,
        drop_points=100 * drop,
        drop_ci95_points=(100 * low, 100 * high),
        p_value=mcnemar_exact(lost, gained),
        paired=True,
    )


def _measured_once(before: Evidence, after: Evidence) -> list[str]:
    """Artifacts whose accuracy one side alone holds: no gate says anything of them."""
    sides = [one.accuracy.artifacts if one.accuracy else () for one in (before, after)]
    if not all(sides):
        return []
    configs = [{item.config for item in side} for side in sides]
    return [
        f"accuracy of {item.name}: measured in {name} alone"
        for name, side, other in (("A", sides[0], configs[1]), ("B", sides[1], configs[0]))
        for item in side
        if item.config not in other
    ]


def _unpaired(old: ArtifactAccuracy, new: ArtifactAccuracy) -> AccuracyChange:
    first, second = old.top1, new.top1
    drop = first.percent - second.percent
    below = math.hypot(first.percent - first.ci95_percent[0], second.ci95_percent[1] - second.percent)
    above = math.hypot(first.ci95_percent[1] - first.percent, second.percent - second.ci95_percent[0])
    return AccuracyChange(
        name=new.name,
        before_percent=first.percent,
        after_percent=second.percent,
        drop_points=drop,
        drop_ci95_points=(drop - below, drop + above),
        p_value=None,
        paired=False,
    )


def _latency(
    before: Evidence, after: Evidence, options: CompareOptions
) -> tuple[tuple[LatencyChange, ...], tuple[str, ...]]:
    one, other = before.latency, after.latency
    if one is None or other is None:
        missing = [str(item.path) for item in (before, after) if item.latency is None]
        return (), (f"latency: not measured of {' and '.join(missing)} (riformer-deploy bench)",)
    differ = [
        f"{what} {old} and {new}"
        for what, old, new in (
            ("CPU", one.machine.cpu, other.machine.cpu),
            ("cores", one.machine.cores, other.machine.cores),
            ("GPUs", one.machine.gpus or "none", other.machine.gpus or "none"),
            ("threads", one.threads, other.threads),
            ("image size", one.inputs.image_size_px, other.inputs.image_size_px),
        )
        if old != new
    ]
    if differ and not options.across_machines:
        return (), (
            f"latency: not compared, since the two were measured differently: {'; '.join(differ)} "
            "(--across-machines compares all the same)",
        )
    old_series = {_key(sample): sample for sample in one.samples}
    pairs = [(old_series[_key(new)], new) for new in other.samples if _key(new) in old_series]
    changes = tuple(
        LatencyChange(
            name=new.name,
            batch=new.batch,
            timing=new.timing,
            before_ms=old.summary.median_ms,
            after_ms=new.summary.median_ms,
            slowdown=ratio_of_medians(new.samples_ms, old.samples_ms),
        )
        for old, new in pairs
    )
    return changes, tuple(f"latency: measured differently: {text}" for text in differ)


def _key(sample: LatencySamples) -> tuple[object, ...]:
    return sample.config, sample.batch, sample.timing, sample.role
