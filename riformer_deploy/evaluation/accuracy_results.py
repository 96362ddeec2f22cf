"""Accuracy as records: counts, and percentages and verdicts that follow from them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.evaluation.proportion_stats import mcnemar_exact, paired_drop, wilson_interval
from riformer_deploy.evaluation.results import Status
from riformer_deploy.system.records import Machine

TOP = 5
ANSWERS = "accuracy.csv"
"""The table of all answers beside the result: its file and its kind."""
ANSWER_COLUMNS = ("class", "place", "score")
"""Of each artifact in that table, as ``NAME: class``."""
MOST_IMAGES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Share:
    """A proportion of right answers.

    Attributes:
        right: Pictures that were right.
        percent: Of all pictures that could be used.
        ci95_percent: 95 % confidence interval (Wilson).
    """

    right: int
    percent: float
    ci95_percent: tuple[float, float]


def share_of(right: int, images: int) -> Share:
    """The proportion of ``right`` in ``images``, of which there is at least one."""
    low, high = wilson_interval(right, images)
    return Share(right=right, percent=100 * right / images, ci95_percent=(100 * low, 100 * high))


@dataclass(frozen=True, kw_only=True)
class ArtifactAccuracy:
    """How often one artifact is right.

    Attributes:
        config: What was run, and how.
        artifact_sha256: Of its file.
        images: Pictures that it was run on.
        not_finite: Those for which its scores were not finite numbers; they count as wrong.
        top1: Its first class is right; a record whose shares do not follow from their counts is refused.
        top5: The right class is among the first five.
    """

    config: CandidateConfig
    artifact_sha256: str
    images: int
    not_finite: int
    top1: Share
    top5: Share

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return self.config.name

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST_IMAGES or not 0 <= self.not_finite <= self.images - self.top1.right:
            raise ValueError(f"the counts of {self.name} are not those of pictures")
        for share in (self.top1, self.top5):
            if not 0 <= share.right <= self.images or share != share_of(share.right, self.images):
                raise ValueError(f"an accuracy of {self.name} does not follow from its counts")


@dataclass(frozen=True, kw_only=True)
class AccuracyComparison:
    """One artifact against the baseline, picture by picture.

    Attributes:
        config: The artifact.
        baseline: What it is compared with.
        images: Pictures that both were run on.
        lost: Pictures that only the baseline gets right.
        gained: Pictures that only this artifact gets right.
        changed: Pictures whose first class differs, right or wrong.
        drop_points: How much lower its top-1 is, in percentage points; negative if it is higher.
        drop_ci95_points: 95 % confidence interval of that (Agresti and Min, paired).
        p_value: Of both being equally good (McNemar, exact): above 0.05 the drop may be chance.
        status: Failed if the drop is larger than the gate allows; passed where there is no gate.
    """

    config: CandidateConfig
    baseline: CandidateConfig
    images: int
    lost: int
    gained: int
    changed: int
    drop_points: float
    drop_ci95_points: tuple[float, float]
    p_value: float
    status: Status

    def __post_init__(self) -> None:
        counts = (self.lost, self.gained, self.changed)
        if not 1 <= self.images <= MOST_IMAGES or not 0 <= min(counts) <= max(counts) <= self.images:
            raise ValueError(f"the counts of {self.config.name} are not those of pictures")
        own = (self.drop_points, self.drop_ci95_points, self.p_value)
        if own != _paired(self.lost, self.gained, self.images):
            raise ValueError(f"the comparison of {self.config.name} does not follow from its counts")


def _paired(lost: int, gained: int, images: int) -> tuple[float, tuple[float, float], float]:
    drop, low, high = paired_drop(lost, gained, images)
    return 100 * drop, (100 * low, 100 * high), mcnemar_exact(lost, gained)


def _holds(drop_points: float, max_drop_points: float | None) -> bool:
    return max_drop_points is None or drop_points <= max_drop_points


def compare_accuracy(
    config: CandidateConfig,
    baseline: CandidateConfig,
    *,
    lost: int,
    gained: int,
    changed: int,
    images: int,
    max_drop_points: float | None,
) -> AccuracyComparison:
    """Compare an artifact with the baseline.

    Args:
        config: The artifact.
        baseline: What it is compared with.
        lost: Pictures that only the baseline gets right.
        gained: Pictures that only the artifact gets right.
        changed: Pictures whose first class differs.
        images: Pictures that both were run on.
        max_drop_points: The largest drop that passes; None for no gate.
    """
    drop, interval, p_value = _paired(lost, gained, images)
    passed = _holds(drop, max_drop_points)
    return AccuracyComparison(
        config=config,
        baseline=baseline,
        images=images,
        lost=lost,
        gained=gained,
        changed=changed,
        drop_points=drop,
        drop_ci95_points=interval,
        p_value=p_value,
        status=Status.PASSED if passed else Status.FAILED,
    )


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """What accuracy was measured on.

    Attributes:
        location: As the user said it.
        layout: What was found there.
        identity: sha256 over names, sizes, times of change and labels.
        total: Labelled pictures there.
        asked: Those that were to be used; fewer than ``total`` under ``--limit``, spread evenly.
        notes: What the user should know of it.
    """

    location: str
    layout: str
    identity: str
    total: int
    asked: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published of the variant, on ImageNet-1k's 50,000 validation pictures.

    Attributes:
        variant: Its name.
        top1_percent: Top-1 accuracy.
        top5_percent: Top-5 accuracy.
        same_file: Whether the model was made from the published file itself, by its sha256.
    """

    variant: str
    top1_percent: float
    top5_percent: float
    same_file: bool = False


@dataclass(frozen=True, kw_only=True)
class AccuracyResult:
    """How often artifacts are right, all of them on the same pictures.

    Attributes:
        schema: Version of this record.
        kind: Always ``accuracy``.
        created_utc: When, in ISO 8601.
        machine: Where.
        dataset: On what.
        preprocessing: What was done to each picture first.
        published: Beside what; None for a model of one's own.
        artifacts: Every artifact; the first is the baseline.
        comparisons: Every other one against the baseline.
        broken: Pictures that could not be used, and why; no artifact was run on them.
        max_drop_points: The gate; None where there was none.
        resumed_from: Pictures that an earlier, interrupted pass had done already.
        status: Failed if a comparison did.
        skipped: Artifacts that were asked for and could not run.
    """

    schema: int
    kind: str
    created_utc: str
    machine: Machine
    dataset: DatasetRecord
    preprocessing: Preprocessing
    published: Published | None
    artifacts: tuple[ArtifactAccuracy, ...]
    comparisons: tuple[AccuracyComparison, ...]
    broken: tuple[UnusableImage, ...]
    max_drop_points: float | None
    resumed_from: int
    status: Status
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        baseline, *others = self.artifacts or (None,)
        if baseline is None or [item.config for item in self.comparisons] != [item.config for item in others]:
            raise ValueError("every artifact but the first is compared with it")
        problems = [
            f"the comparison of {item.config.name} does not follow from the counts of both"
            for item, other in zip(self.comparisons, others, strict=True)
            if (item.baseline, item.images, other.images)
            != (baseline.config, baseline.images, baseline.images)
            or item.lost - item.gained != baseline.top1.right - other.top1.right
        ]
        problems += [
            f"the verdict on {item.config.name} does not follow from its drop"
            for item in self.comparisons
            if (item.status is Status.PASSED) != _holds(item.drop_points, self.max_drop_points)
        ]
        if baseline.images + len(self.broken) != self.dataset.asked:
            problems.append(f"{baseline.images} pictures and {len(self.broken)} broken ones are not all")
        if (self.status is Status.FAILED) != any(item.status is Status.FAILED for item in self.comparisons):
            problems.append("the verdict does not follow from the comparisons")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def measured(self) -> set[tuple[CandidateConfig, str]]:
        """What was run: every config with the sha256 of its file."""
        return {(item.config, item.artifact_sha256) for item in self.artifacts}

    @property
    def images(self) -> int:
        """Pictures that every artifact was run on."""
        return self.artifacts[0].images

    @property
    def _circumstances(self) -> tuple[object, ...]:
        """What two passes have to have in common so that one can stand for the other."""
        machine = self.machine
        software = (machine.cpu, machine.system, machine.libraries)
        return (self.dataset.identity, self.preprocessing, self.max_drop_points, software)

    def outweighs(self, other: AccuracyResult) -> bool:
        """Whether it says the same and more: dataset, gate, processor and libraries are the same.

        Args:
            other: Another pass.
        """
        more = (self.images, len(self.measured)) != (other.images, len(other.measured))
        covers = self.images >= other.images and self.measured >= other.measured
        return more and covers and self._circumstances == other._circumstances

    def of_files(self, present: Collection[str]) -> AccuracyResult | None:
        """The same pass with some artifacts alone; None where there is no baseline then.

        Args:
            present: sha256 of the artifacts that stay.
        """
        artifacts = tuple(item for item in self.artifacts if item.artifact_sha256 in present)
        if self.artifacts[0] not in artifacts:
            return None
        configs = {item.config for item in artifacts}
        comparisons = tuple(item for item in self.comparisons if item.config in configs)
        failed = any(item.status is Status.FAILED for item in comparisons)
        status = Status.FAILED if failed else Status.PASSED
        return replace(self, artifacts=artifacts, comparisons=comparisons, status=status)
