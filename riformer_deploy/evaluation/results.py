"""Parity and latency as versioned records: raw figures, and statistics and verdicts that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision, Role, RuntimeKind
from riformer_deploy.evaluation.latency_summary import LatencySummary, summarize
from riformer_deploy.evaluation.metric_records import Decisions, Deviation
from riformer_deploy.evaluation.tolerances import Tolerance
from riformer_deploy.system.records import GpuWatch, Machine

RESULT_SCHEMA = 2


def _check_header(schema: int, kind: str, expected: str) -> None:
    if (schema, kind) != (RESULT_SCHEMA, expected):
        raise ValueError(f"{kind} record of schema {schema}; expected {expected}, schema {RESULT_SCHEMA}")


class Status(StrEnum):
    """Verdict of a gate."""

    PASSED = "passed"
    FAILED = "failed"


def status(*, passed: bool) -> Status:
    """The verdict as a status."""
    return Status.PASSED if passed else Status.FAILED


@dataclass(frozen=True, kw_only=True)
class InputImages:
    """What the models were run on.

    Attributes:
        description: In words.
        image_size_px: Height and width.
        batches: Sizes of the batches, in order.
        seed: Of the generator, where the images are synthetic.
    """

    description: str
    image_size_px: tuple[int, int]
    batches: tuple[int, ...]
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """One output against the reference.

    Attributes:
        name: ``logits`` or ``features``.
        deviation: The distance.
        decisions: First classes, for logits.
        tolerance_used: The share of the tolerance that the distance takes, the largest over its limits;
            above 1 is out, None where a value is not finite.
        status: Whether the distance is within the tolerance and no decided class flipped.
    """

    name: str
    deviation: Deviation
    decisions: Decisions | None
    tolerance_used: float | None
    status: Status


@dataclass(frozen=True, kw_only=True)
class StageParity:
    """The activations after one stage against the reference's.

    Attributes:
        stage: 1 to 4.
        tensor: Name of its last block.
        deviation: The distance.
        status: Whether its relative L2 error is within the tolerance.
    """

    stage: int
    tensor: str
    deviation: Deviation
    status: Status


@dataclass(frozen=True, kw_only=True)
class CandidateParity:
    """One candidate against the reference.

    Attributes:
        config: What was run, and how.
        artifact_sha256: Of the file that was run, or of the weights for PyTorch.
        tolerance: The limits that it was held to.
        outputs: Every output.
        stages: Every stage; none where the candidate's inside cannot be looked at (an engine).
        first_bad_block: The first block, in the network's order, whose activations are out; only
            looked for where a stage or an output is.
        status: Passed if every output and every stage did.
        batches: Batch sizes that it was run with.
        graph: Whether it was the CUDA graph that it was to be, at every batch; None if it was to be none.
        file: The bundle's file that its verdict is about; None for weights of no bundle.
    """

    config: CandidateConfig
    artifact_sha256: str
    tolerance: Tolerance
    outputs: tuple[OutputParity, ...]
    stages: tuple[StageParity, ...]
    first_bad_block: str | None
    status: Status
    batches: tuple[int, ...] = ()
    graph: GraphState | None = None
    file: str | None = None

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return self.config.name

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self.config.precision

    @property
    def runtime(self) -> RuntimeKind:
        """What ran it."""
        return self.config.runtime

    @property
    def judges_file(self) -> bool:
        """Whether the verdict is the file's; where not, it is the runtime's alone."""
        return self.runtime.judges_file


def files_status(candidates: Sequence[CandidateParity]) -> Status:
    """Passed if every candidate that judges a file passed and there is at least one.

    Args:
        candidates: Those of one result.
    """
    judges = [candidate for candidate in candidates if candidate.judges_file]
    passed = bool(judges) and all(candidate.status is Status.PASSED for candidate in judges)
    return Status.PASSED if passed else Status.FAILED


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """The parity report that artifacts compute the reference's function.

    Attributes:
        schema: Version of this record.
        kind: Always ``parity``.
        created_utc: When, in ISO 8601.
        machine: Where.
        reference: What everything was compared with.
        reference_sha256: Of its weights file.
        inputs: What it was run on.
        candidates: Every candidate, PyTorch float32 first: the others are read beside its error.
        skipped: Those that could not run.
        status: Whether the files are right: passed if every candidate that judges a file did and there was at
            least one. A runtime that only has a verdict of its own may have failed.
        reference_stored: Whether the reference's outputs are those that the bundle keeps, since PyTorch is
            not installed here; then no single block is named.
        stored_reference_relative_l2: Largest relative L2 distance of the outputs that the bundle keeps from
            those computed here; None where there are not both.
        unverified: Engines of the bundle that no candidate ran.
    """

    schema: int
    kind: str
    created_utc: str
    machine: Machine
    reference: str
    reference_sha256: str
    inputs: InputImages
    candidates: tuple[CandidateParity, ...]
    skipped: tuple[Skipped, ...]
    status: Status
    reference_stored: bool = False
    stored_reference_relative_l2: float | None = None
    unverified: tuple[CandidateConfig, ...] = ()

    def __post_init__(self) -> None:
        _check_header(self.schema, self.kind, "parity")
        if self.status is not files_status(self.candidates):
            raise ValueError("the verdict does not follow from the candidates")

    @property
    def failed(self) -> tuple[CandidateParity, ...]:
        """Every candidate that failed, whether or not it judges a file."""
        return tuple(c for c in self.candidates if c.status is Status.FAILED)


class Timing(StrEnum):
    """What was timed; ``DeviceTimes`` of ``backends.base`` says where each part begins and ends."""

    CALL = "call"
    """From the call to the outputs on the host, by the host's clock: copies and Python included."""
    COMPUTE = "compute"
    """Kernels of one inference, by events on the device; its L2 cache is cold: something else filled it."""
    COMPUTE_WARM = "compute-warm"
    """Kernels of one of several inferences back to back, by events on the device, with what the one before
    it left in the L2 cache. A sample is the average of one window; there is one a turn. Its images per
    second are the throughput."""
    TRANSFERS = "transfers"
    """Copying images to the device and outputs back, by events on the device, from and to page-locked
    memory."""
    STAGING = "staging"
    """Copying images into page-locked memory, by the host's clock."""


@dataclass(frozen=True, kw_only=True)
class LatencySamples:
    """How long one candidate took for one batch size.

    Attributes:
        config: What was run, and how.
        batch: Images per call.
        timing: What was timed.
        role: What it is in a comparison.
        samples_ms: Every timed call in order, in milliseconds; warm-up is left out.
        preparation_ms: Loading, compiling and warming up.
        artifact_sha256: Of the file that was run, or of the weights for PyTorch.
        warning: Why the figures are to be taken with care, if they are.
        summary: Statistics of the samples; a record whose summary does not follow from them is refused.
        graph: Whether it was the CUDA graph that it was to be; None if it was to be none.
        parity: What the bundle's stored parity said of it when it was timed; None where nothing.
    """

    config: CandidateConfig
    batch: int
    samples_ms: tuple[float, ...]
    preparation_ms: float
    artifact_sha256: str
    warning: str | None
    summary: LatencySummary
    timing: Timing = Timing.CALL
    graph: GraphState | None = None
    role: Role = Role.CANDIDATE
    parity: Status | None = None

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return self.config.name

    def __post_init__(self) -> None:
        if not self.samples_ms or min(self.samples_ms) <= 0 or self.batch < 1:
            raise ValueError(f"the samples of {self.name} are not times of a batch")
        if self.summary != summarize(self.samples_ms, self.batch):
            raise ValueError(f"the summary of {self.name} does not follow from its samples")


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Latencies measured side by side in interleaved rounds.

    Attributes:
        schema: Version of this record.
        kind: Always ``latency``.
        created_utc: When, in ISO 8601.
        machine: Where.
        inputs: What the models were run on.
        threads: CPU threads that each candidate may use.
        rounds: Rounds of the batch size that had the fewest; in each, every candidate has one turn, in
            shuffled order.
        repeats: Timed calls per turn, after one untimed call.
        samples: Every candidate and batch size, with raw samples.
        skipped: Those that could not run.
        process_peak_rss_bytes: Largest resident memory of the whole process, all candidates loaded.
        gpu: The GPU before and after, where a candidate ran on one.
    """

    schema: int
    kind: str
    created_utc: str
    machine: Machine
    inputs: InputImages
    threads: int
    rounds: int
    repeats: int
    samples: tuple[LatencySamples, ...]
    skipped: tuple[Skipped, ...]
    process_peak_rss_bytes: int
    gpu: GpuWatch | None = None

    def __post_init__(self) -> None:
        _check_header(self.schema, self.kind, "latency")
