"""What ``run`` is asked for, what it did and what it answers, as records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from riformer_deploy.api.export_records import ExportOptions
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind, Target, WeightSet
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing_changes import AS_FOUND, PreprocessingChanges
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.results import Status

RUN = "run"
"""Kind of the result that is :class:`RunRecord`."""
RUN_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What to deploy, where to, and on what evidence.

    Attributes:
        checkpoint: The file.
        output: The bundle's folder; what it holds already is gone on with.
        target: Where the artifacts are to run.
        calibration: An ``.npz`` file or a folder of images, or ``random``; int8 and fp8 are left out without.
        skip_bad: Use the rest of the calibration images where part of them cannot be used.
        data: The folder or ``.npz`` file of labelled pictures; accuracy is not measured without.
        split: Which part of it.
        limit: Use so many pictures only, spread evenly; None for all.
        max_drop_points: An artifact whose top-1 is lower than the baseline's by more is not chosen; None for
            no gate.
        batches: Batch sizes to decide for.
        max_seconds: Limit of all timed rounds together.
        image_size_px: Height and width; None takes what the checkpoint or the variant says.
        preprocessing: Settings that go before what the checkpoint or the variant says.
        config: mmengine's config file of the checkpoint; None takes the one stored in it.
        weights: Which set of weights to take where the file holds two.
        key: Which RIFormer to take where the file holds several.
        class_names: A file of class names, one a line; None takes those stored.
        force: Replace a bundle of another checkpoint, and drop graphs that no longer fit.
    """

    checkpoint: Path | str
    output: Path | str
    target: Target = Target.AUTO
    calibration: Path | str | None = None
    skip_bad: bool = False
    data: Path | str | None = None
    split: str = "val"
    limit: int | None = None
    max_drop_points: float | None = None
    batches: tuple[int, ...] = (1, 8)
    max_seconds: float = 60.0
    image_size_px: tuple[int, int] | None = None
    preprocessing: PreprocessingChanges = AS_FOUND
    config: Path | str | None = None
    weights: WeightSet | None = None
    key: str | None = None
    class_names: Path | str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        BenchOptions(batches=self.batches, max_seconds=self.max_seconds)  # refused now, not after the export
        problems = []
        if self.limit is not None and self.limit < 1:
            problems.append(f"--limit must be at least 1, got {self.limit}")
        if self.max_drop_points is not None and not 0 <= self.max_drop_points <= 100:
            problems.append(f"--max-drop must be from 0 to 100 points, got {self.max_drop_points}")
        if self.max_drop_points is not None and self.data is None:
            problems.append("--max-drop holds accuracy on labelled pictures; name them with --data")
        if problems:
            raise OptionError("The run cannot be done as asked.", details=problems)

    def export_options(
        self, lowerings: tuple[LoweringConfig, ...], *, opset: int, batch: int | None
    ) -> ExportOptions:
        """The export of some of the graphs.

        Args:
            lowerings: Of these graphs.
            opset: Version of ONNX's default operator set.
            batch: A fixed batch size, or None for a dynamic one.
        """
        return ExportOptions(
            checkpoint=self.checkpoint,
            output=self.output,
            config=self.config,
            weights=self.weights,
            key=self.key,
            image_size_px=self.image_size_px,
            preprocessing=self.preprocessing,
            class_names=self.class_names,
            opset=opset,
            batch=batch,
            force=self.force,
            lowerings=lowerings,
            calibration=self.calibration,
            skip_bad=self.skip_bad,
        )


class StepOutcome(StrEnum):
    """What became of a step."""

    DONE = "done"
    REUSED = "reused"
    """The bundle held valid evidence for the same inputs."""
    SKIPPED = "skipped"
    """It cannot be done here, or nobody asked for it."""
    FAILED = "failed"
    """It was tried."""


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """One step.

    Attributes:
        name: Such as ``export`` or ``build fp16``.
        outcome: What became of it.
        text: What was done, or why not, in one line.
        seconds: How long it took.
    """

    name: str
    outcome: StepOutcome
    text: str
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ShipChoice:
    """What to ship for one batch size.

    Attributes:
        batch: Images per call.
        file: The bundle's file.
        sha256: Of the file.
        runtime: What runs it.
        precision: What it computes in.
        name: What tables call the pair of both.
        median_ms: Of a call, or of its kernels on a GPU.
        ci95_ms: 95 % confidence interval of that.
        baseline: The strongest way to run the model in PyTorch here; None where none was measured.
        speed_up: How many times as fast as the baseline; None where there is none to compare with.
        speed_up_ci95: 95 % confidence interval of that.
        top1_percent: Its top-1 accuracy; None where that was not measured.
        top1_ci95_percent: 95 % confidence interval of that.
        pictures: Labelled pictures that it was run on.
        drop_points: How much lower its top-1 is than the accuracy baseline's, in percentage points.
        drop_ci95_points: 95 % confidence interval of that.
    """

    batch: int
    file: str
    sha256: str
    runtime: RuntimeKind
    precision: Precision
    name: str
    median_ms: float
    ci95_ms: tuple[float, float] | None
    baseline: str | None
    speed_up: float | None
    speed_up_ci95: tuple[float, float] | None
    top1_percent: float | None
    top1_ci95_percent: tuple[float, float] | None
    pictures: int | None
    drop_points: float | None
    drop_ci95_points: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What ``run`` did, and its answer.

    Attributes:
        status: ``failed`` where the files' parity does not hold, or, of what was timed for a batch size,
            nothing holds parity and the accuracy gate.
        checkpoint: Its file name.
        source_sha256: Of its content.
        target: Where the artifacts are to run.
        bundle: The bundle's folder, or None where nothing was written.
        steps: What was done, reused, skipped and failed, in order.
        choices: What to ship, by batch size.
        refused: Pairs of artifact and runtime that must not be shipped, each with the reason.
        unverified: What the bundle holds no evidence of, each in one sentence.
        answer: All this in a few lines.
        next_command: The arguments of the next command as a rule.
        report: The HTML report, if it was written.
        model_card: The model card, if it was written.
        notes: What the user should know of the inputs and of what the export dropped.
    """

    status: Status
    checkpoint: str
    source_sha256: str
    target: Target
    bundle: str | None
    steps: tuple[RunStep, ...]
    choices: tuple[ShipChoice, ...]
    refused: tuple[str, ...]
    unverified: tuple[str, ...]
    answer: str
    next_command: tuple[str, ...]
    report: str | None
    model_card: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FailedPrecision:
    """A precision whose graph failed parity, so that the bundle holds nothing of it.

    Attributes:
        precision: Which.
        inputs: sha256 of all that the graph depends on; other inputs, and it is tried again.
        reason: The figures that are out.
    """

    precision: Precision
    inputs: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """``run.json``: what the rest of a bundle's evidence does not tell a later run.

    Attributes:
        schema: Version of this record.
        kind: Always ``run``.
        failed: Precisions that failed parity.
        latency_sha256: The session that the last run measured, if it did.
        max_seconds: Its limit.
        reported: sha256 over the evidence that the report was written of, if one was.
    """

    schema: int = RUN_SCHEMA
    kind: str = RUN
    failed: tuple[FailedPrecision, ...] = ()
    latency_sha256: str | None = None
    max_seconds: float | None = None
    reported: str | None = None

    def __post_init__(self) -> None:
        if (self.schema, self.kind) != (RUN_SCHEMA, RUN):
            raise ValueError(f"{self.kind} record of schema {self.schema}; expected run, schema {RUN_SCHEMA}")
