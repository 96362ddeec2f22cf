"""What ``tune`` found, as a versioned record: the whole trace, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.evaluation.accuracy_results import DatasetRecord
from riformer_deploy.evaluation.results import RESULT_SCHEMA, Status
from riformer_deploy.quantization.search_records import SearchGate, SearchTrace, Trial
from riformer_deploy.system.records import Machine

KINDS = {
    RuntimeKind.ONNX_RUNTIME: "tune-onnx",
    RuntimeKind.OPENVINO: "tune-openvino",
    RuntimeKind.TENSORRT: "tune-engine",
}
"""Kinds of a bundle's results, by what the bundle was tuned for; the file's name, with ``.json``."""


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """A search for the fastest artifact of one runtime that holds a gate.

    Attributes:
        schema: Version of this record.
        kind: Always ``tune``.
        created_utc: When, in ISO 8601.
        key: sha256 of all that the answer depends on: weights, images, options, machine and versions.
        machine: Where.
        runtime: The target.
        threads: CPU threads.
        batches: Batch sizes that the answer is to be fast at.
        calibration: The calibration images, as the user named them, without the folder.
        calibration_images: How many.
        random: Whether they were random, so that accuracy on real ones is not known.
        dataset: The labelled pictures; None where none were given.
        reference_top1_percent: Top-1 of the reference on them.
        gate: What the answer has to hold to, beside the parity tolerance of its precision.
        max_seconds: Limit of the search; None for none.
        trace: Every trial and race, and the answer.
        file: The bundle's graph that is the answer.
        artifact_sha256: Of that graph.
        engine_file: The bundle's engine that was built of it, where the target is TensorRT.
        notes: What the user should know, such as what was replaced.
        status: Failed where the answer's parity does not hold; then the bundle's models are as they were.
        engine_sha256: Of the engine that was measured; None where there is none.
    """

    schema: int
    kind: str
    created_utc: str
    key: str
    machine: Machine
    runtime: RuntimeKind
    threads: int
    batches: tuple[int, ...]
    calibration: str
    calibration_images: int
    random: bool
    dataset: DatasetRecord | None
    reference_top1_percent: float | None
    gate: SearchGate
    max_seconds: float | None
    trace: SearchTrace
    file: str
    artifact_sha256: str
    engine_file: str | None
    notes: tuple[str, ...]
    status: Status
    engine_sha256: str | None = None

    def __post_init__(self) -> None:
        if (self.schema, self.kind) != (RESULT_SCHEMA, "tune"):
            raise ValueError(f"{self.kind} record of schema {self.schema}; expected tune, {RESULT_SCHEMA}")
        if self.trace.answer is None:
            raise ValueError("a search without an answer")
        if not self.gate.holds(self.answer.judged):
            raise ValueError("the answer does not hold the gate")

    @property
    def answer(self) -> Trial:
        """The trial that is shipped."""
        return self.trace.trials[self.trace.answer or 0]
