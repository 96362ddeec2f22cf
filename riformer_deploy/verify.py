"""Judges contestants against a reference: outputs, stages, and the first block that is out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.artifacts import Precision
from riformer_deploy.budgets import Budget
from riformer_deploy.errors import RuntimeFailureError
from riformer_deploy.machine import describe_machine
from riformer_deploy.metrics import Deviation, decisions, deviation
from riformer_deploy.results import (
    RESULT_SCHEMA,
    CandidateParity,
    Inputs,
    OutputParity,
    ParityResult,
    Skipped,
    StageParity,
    Status,
)
from riformer_deploy.runtimes.base import Contestant, Images, Outputs, Runtime

_LOG = logging.getLogger(__name__)

_CHUNK = 8
"""Images that the reference runs at once: in float64 its activations are large."""

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""


@dataclass(frozen=True, kw_only=True)
class ParityTask:
    """What to judge.

    Attributes:
        reference: The training form in float64.
        candidates: What to compare with it.
        budgets: Limits by precision; every candidate's precision has one.
        blocks: Names of the blocks of each stage, in order.
        images: Every image, (N, 3, H, W) float32; as many as ``inputs.batches`` add up to.
        inputs: Where they come from and how they are split.
        skipped: Artifacts that take no part, with the reason; listed in the result.
    """

    reference: Contestant
    candidates: Sequence[Contestant]
    budgets: Mapping[Precision, Budget]
    blocks: tuple[tuple[str, ...], ...]
    images: Images
    inputs: Inputs
    skipped: Sequence[Skipped] = ()

    @property
    def sample(self) -> Images:
        """The first batch: activations are large, so stages are compared on it alone."""
        return self.images[: self.inputs.batches[0]]


def _status(*, passed: bool) -> Status:
    return Status.PASSED if passed else Status.FAILED


def _run_batches(runtime: Runtime, images: Images, batches: Sequence[int]) -> Outputs:
    """Outputs of all images, run batch by batch and put together again."""
    parts: dict[str, list[np.ndarray]] = {}
    start = 0
    for size in batches:
        for name, values in runtime.run(images[start : start + size]).items():
            parts.setdefault(name, []).append(values)
        start += size
    return {name: np.concatenate(values) for name, values in parts.items()}


def _tap_chunks(runtime: Runtime, images: Images, tensors: Sequence[str]) -> Outputs:
    """Taps of all images, a few at a time, for a runtime that takes any batch."""
    parts = [runtime.tap(images[i : i + _CHUNK], tensors) for i in range(0, len(images), _CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in tensors}


def _chunks(count: int) -> list[int]:
    return [_CHUNK] * (count // _CHUNK) + ([count % _CHUNK] if count % _CHUNK else [])


def _with_choices(reference: Outputs, got: Outputs) -> tuple[Outputs, Outputs]:
    """Where a model gives its first K classes, what to compare with what.

    ``scores``: its scores beside the reference's K largest. ``labels``: the reference's own scores of the
    classes that it named beside the reference's K largest.
    """
    if "labels" not in got:
        return reference, got
    probabilities, labels = reference["probabilities"], got["labels"].astype(np.int64)
    count = labels.shape[1]
    valid = ((labels >= 0) & (labels < probabilities.shape[1])).all() and all(
        len(set(row)) == count for row in labels.tolist()
    )
    named = np.take_along_axis(probabilities, labels, axis=1) if valid else np.full(labels.shape, np.nan)
    largest = -np.sort(-probabilities, axis=1)[:, :count]
    return {"scores": largest, "labels": largest}, {"scores": got["scores"], "labels": named}


def _tolerance(reference: NDArray[np.floating], budget: Budget) -> tuple[float, float]:
    """Rtol and atol: the budget's, or four standard deviations of the noise that its SQNR allows."""
    if budget.elementwise is not None:
        return budget.elementwise
    rms = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    allowed = 4 * rms * 10 ** (-(budget.min_sqnr_db or 0.0) / 20)
    return 0.0, allowed or float(np.finfo(np.float32).tiny)


def _budget_used(distance: Deviation, budget: Budget) -> float | None:
    if not distance.finite:
        return None
    shares = []
    if budget.elementwise is not None:
        shares.append(distance.tolerance_used)
    if budget.min_sqnr_db is not None:
        exact = 0.0 if distance.max_abs == 0 else None
        noise = distance.relative_l2
        shares.append(exact if noise is None else noise * 10 ** (budget.min_sqnr_db / 20))
    known = [share for share in shares if share is not None]
    return max(known) if len(known) == len(shares) else None


def _judge_outputs(reference: Outputs, got: Outputs, budget: Budget) -> tuple[OutputParity, ...]:
    reference, got = _with_choices(reference, got)
    judged = []
    for name in got:
        if name not in reference:
            raise RuntimeFailureError(
                f"The model has an output {name} that the reference cannot be asked for."
            )
        if got[name].shape != reference[name].shape:
            raise RuntimeFailureError(
                f"Output {name} has shape {got[name].shape}, the reference's has {reference[name].shape}."
            )
        rtol, atol = _tolerance(reference[name], budget)
        distance = deviation(reference[name], got[name], rtol=rtol, atol=atol)
        choice = decisions(reference[name], got[name], rtol=rtol, atol=atol) if name == "logits" else None
        used = _budget_used(distance, budget)
        within = used is not None and used <= 1
        judged.append(
            OutputParity(
                name=name,
                deviation=distance,
                decisions=choice,
                budget_used=used,
                status=_status(passed=within and (choice is None or choice.decided_flips == 0)),
            )
        )
    return tuple(judged)


def _stage_passes(relative_l2: float | None, *, finite: bool, max_abs: float | None, budget: Budget) -> bool:
    if not finite:
        return False
    # A stage of zeros has no relative error; then nothing may differ at all.
    return max_abs == 0 if relative_l2 is None else relative_l2 <= budget.stage_relative_l2


def _judge_taps(reference: Outputs, got: Outputs, budget: Budget) -> dict[str, StageParity]:
    """Every tap by name; ``stage`` is the number of the stage that the block belongs to."""
    judged = {}
    for name, true in reference.items():
        rtol, atol = _tolerance(true, budget)
        distance = deviation(true, got[name], rtol=rtol, atol=atol)
        passed = _stage_passes(
            distance.relative_l2, finite=distance.finite, max_abs=distance.max_abs, budget=budget
        )
        stage = int(name.split(".")[2]) // 2 + 1
        judged[name] = StageParity(
            stage=stage, tensor=name, deviation=distance, status=_status(passed=passed)
        )
    return judged


def _first_bad_block(
    task: ParityTask, runtime: Runtime, stages: Sequence[StageParity], budget: Budget
) -> str | None:
    """Compare every block up to the end of the first stage that is out; None where all are within.

    Earlier stages are looked into as well: a block that is out may be followed by one that hides it.
    """
    out = [stage.stage for stage in stages if stage.status is Status.FAILED]
    searched = task.blocks[: out[0]] if out else task.blocks
    names = tuple(name for stage in searched for name in stage)
    reference = task.reference.open()
    try:
        true = _tap_chunks(reference, task.sample, names)
    finally:
        reference.close()
    judged = _judge_taps(true, runtime.tap(task.sample, names), budget)
    return next((name for name in names if judged[name].status is Status.FAILED), None)


def _judge(task: ParityTask, candidate: Contestant, true: Outputs, taps: Outputs) -> CandidateParity:
    budget = task.budgets[candidate.precision]
    runtime = candidate.open()
    try:
        outputs = _judge_outputs(true, _run_batches(runtime, task.images, task.inputs.batches), budget)
        stages = tuple(_judge_taps(taps, runtime.tap(task.sample, list(taps)), budget).values())
        statuses = [*(item.status for item in outputs), *(item.status for item in stages)]
        passed = bool(outputs) and all(status is Status.PASSED for status in statuses)
        block = None if passed else _first_bad_block(task, runtime, stages, budget)
    finally:
        runtime.close()
    return CandidateParity(
        name=candidate.name,
        precision=candidate.precision,
        artifact_sha256=candidate.artifact_sha256,
        budget=budget,
        outputs=outputs,
        stages=stages,
        first_bad_block=block,
        status=_status(passed=passed),
    )


def verify_parity(task: ParityTask, progress: Progress = lambda _: None) -> ParityResult:
    """Compare every candidate with the reference; one model is open at a time.

    Args:
        task: What to judge.
        progress: Told of each step.

    Returns:
        The result; a candidate that is out of its budget makes it ``failed``.

    Raises:
        RuntimeFailureError: A model cannot be loaded or run, or the reference itself gives values
            that are not finite, so that nothing can be compared with it.
        MissingDependencyError: A candidate's backend is not installed.
    """
    progress(task.reference.name)
    reference = task.reference.open()
    try:
        true = _run_batches(reference, task.images, _chunks(len(task.images)))
        taps = _tap_chunks(reference, task.sample, [stage[-1] for stage in task.blocks])
    finally:
        reference.close()
    endless = [name for name, values in {**true, **taps}.items() if not np.isfinite(values).all()]
    if endless:
        raise RuntimeFailureError(
            f"The reference ({task.reference.name}) overflows on these images, so nothing can be proven.",
            details=endless,
            remedy="Check the checkpoint's weights; values this large come of a diverged training.",
        )
    judged = []
    for candidate in task.candidates:
        progress(candidate.name)
        judged.append(_judge(task, candidate, true, taps))
        _LOG.info("parity of %s: %s", candidate.name, judged[-1].status)
    return ParityResult(
        schema=RESULT_SCHEMA,
        kind="parity",
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        reference=task.reference.name,
        reference_sha256=task.reference.artifact_sha256,
        inputs=task.inputs,
        candidates=tuple(judged),
        skipped=tuple(task.skipped),
        status=_status(passed=bool(judged) and all(item.status is Status.PASSED for item in judged)),
    )
