"""Compares candidates with a reference: outputs, stages, and the first block that is out of tolerance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from riformer_deploy.backends.base import Candidate, Outputs, Runtime, graph_of
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.progress import Progress, Step, silent
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.reference_outputs import (
    TAPPED,
    ReferenceOutputs,
    run_batches,
    run_reference,
)
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    CandidateParity,
    InputImages,
    ParityResult,
    StageParity,
    Status,
    files_status,
    status,
)
from riformer_deploy.evaluation.tensor_comparison import compare_outputs, compare_taps
from riformer_deploy.evaluation.tolerances import Tolerance
from riformer_deploy.system.machine import describe_machine

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ParityTask:
    """What to compare with what.

    Attributes:
        reference: The training form in float64.
        candidates: What to compare with it.
        tolerances: Limits by precision; every candidate's precision has one.
        blocks: Names of the blocks of each stage, in order.
        images: Every image, (N, 3, H, W) float32; as many as ``inputs.batches`` add up to.
        inputs: Where they come from and how they are split.
        skipped: Artifacts that take no part, with the reason; listed in the result.
        expected: What the reference gives on these images, where it has been run already.
        bisect: Whether the reference is opened to find the first block that is out, which needs PyTorch.
    """

    reference: Candidate
    candidates: Sequence[Candidate]
    tolerances: Mapping[Precision, Tolerance]
    blocks: tuple[tuple[str, ...], ...]
    images: Images
    inputs: InputImages
    skipped: Sequence[Skipped] = ()
    expected: ReferenceOutputs | None = None
    bisect: bool = True

    @property
    def stage_of(self) -> dict[str, int]:
        """The number of its stage, from 1, by name of each block."""
        return {name: number for number, names in enumerate(self.blocks, 1) for name in names}

    @property
    def sample(self) -> Images:
        """The first batch, which every candidate takes."""
        return self.images[: self.inputs.batches[0]]

    @property
    def tapped(self) -> Images:
        """Those of it whose stages and blocks are compared."""
        return self.sample[:TAPPED]


def _repeated(task: ParityTask, true: Outputs, further: Sequence[int]) -> tuple[Images, Outputs]:
    """The task's images with further batches of the same images behind them, and what they must give."""
    count = len(task.images)
    order = np.concatenate([np.arange(count), *(np.arange(size) % count for size in further)])
    return task.images[order], {name: values[order] for name, values in true.items()}


def _taps(runtime: Runtime, images: Images, tensors: Sequence[str]) -> Outputs:
    """Taps of the first images alone: activations are large."""
    return {name: values[:TAPPED] for name, values in runtime.tap(images, tensors).items()}


def _first_bad_block(
    task: ParityTask, runtime: Runtime, stages: Sequence[StageParity], tolerance: Tolerance
) -> str | None:
    """Compare every block up to the end of the first stage that is out; None where all are within.

    Earlier stages are looked into as well: a block that is out may be followed by one that hides it.
    """
    out = [stage.stage for stage in stages if stage.status is Status.FAILED]
    reference = task.reference.open()
    try:
        for names in task.blocks[: out[0]] if out else task.blocks:
            true = reference.tap(task.tapped, names)
            compared = compare_taps(true, _taps(runtime, task.sample, names), tolerance, task.stage_of)
            bad = next((name for name in names if compared[name].status is Status.FAILED), None)
            if bad is not None:
                return bad
    finally:
        reference.close()
    return None


def _compare(task: ParityTask, candidate: Candidate, true: Outputs, taps: Outputs) -> CandidateParity:
    tolerance = task.tolerances[candidate.precision]
    runtime = candidate.open()
    try:
        sizes = (*task.inputs.batches, *candidate.parity_batches)
        images, expected = _repeated(task, true, candidate.parity_batches)
        got = run_batches(runtime, images, sizes, candidate.batches)
        outputs = compare_outputs(expected, got, tolerance)
        seen = _taps(runtime, task.sample, list(taps)) if candidate.observable and taps else {}
        true_taps = {name: taps[name] for name in seen}
        stages = tuple(compare_taps(true_taps, seen, tolerance, task.stage_of).values())
        statuses = [*(item.status for item in outputs), *(item.status for item in stages)]
        passed = bool(outputs) and all(status is Status.PASSED for status in statuses)
        looked = candidate.observable and task.bisect and not passed
        block = _first_bad_block(task, runtime, stages, tolerance) if looked else None
    finally:
        runtime.close()
    return CandidateParity(
        config=candidate.config,
        artifact_sha256=candidate.artifact_sha256,
        tolerance=tolerance,
        batches=tuple(dict.fromkeys(sizes)),
        outputs=outputs,
        stages=stages,
        first_bad_block=block,
        status=status(passed=passed),
        graph=graph_of(runtime),
        file=candidate.file,
    )


def verify_parity(task: ParityTask, progress: Progress = silent) -> ParityResult:
    """Compare every candidate with the reference; one model is open at a time.

    Args:
        task: What to compare with what.
        progress: Called with each step.

    Returns:
        The result; a candidate that is out of its tolerance and judges a file makes it ``failed``.

    Raises:
        RuntimeFailureError: A model cannot be loaded or run, or the reference itself gives values
            that are not finite, so that nothing can be compared with it.
        MissingDependencyError: A candidate's backend is not installed.
    """
    expected = task.expected
    if expected is None:
        progress(task.reference.name)
        expected = run_reference(task.reference, task.images, task.tapped, task.blocks)
    compared = []
    count = len(task.candidates)
    for done, candidate in enumerate(task.candidates):
        part = f"{done + 1} of {count}"
        progress(Step(candidate.name, part, done=done, total=count, series="parity"))
        compared.append(_compare(task, candidate, expected.outputs, expected.stages))
        _LOG.info("parity of %s: %s", candidate.name, compared[-1].status)
    return ParityResult(
        schema=RESULT_SCHEMA,
        kind="parity",
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        reference=task.reference.name,
        reference_sha256=task.reference.artifact_sha256,
        inputs=task.inputs,
        candidates=tuple(compared),
        skipped=tuple(task.skipped),
        status=files_status(compared),
    )
