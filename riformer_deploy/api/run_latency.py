"""Latency in a run: measured only where the bundle's newest session does not hold it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from riformer_deploy.api.bench import BenchOptions, bench_bundle
from riformer_deploy.api.run_context import RunContext, measured_step, read_record, write_record
from riformer_deploy.api.run_records import RunRecord, RunStep, StepOutcome
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Baselines, Group, Precision, Target
from riformer_deploy.common.errors import BundleError
from riformer_deploy.evaluation.latency_comparison import ratio_of, strongest_baseline
from riformer_deploy.evaluation.latency_sessions import NEWEST, read_session
from riformer_deploy.evaluation.results import LatencyResult, Timing

_ON_GPU = GpuOptions(baselines=Baselines.QUICK)
"""Of the strongest ways of running PyTorch those that compile within a minute: with the others a run of the
example on an H200 had not ended after one."""


def measure_latency(context: RunContext) -> RunStep:
    """Time what can run here side by side, unless the bundle's newest session holds it.

    Args:
        context: The run.

    Raises:
        BundleError: A file was changed, or the bundle cannot be written.
    """
    target = context.options.target
    if target is Target.GPU and not context.has_gpu:
        text = f"{context.driver.problem}: take the bundle to a machine with a GPU and run this again there"
        return RunStep(name="bench", outcome=StepOutcome.SKIPPED, text=text)
    bundle = Bundle.open(context.directory)
    fixed = bundle.manifest.onnx[0].batch
    options = BenchOptions(
        batches=context.options.batches if fixed is None else (fixed,),
        max_seconds=context.options.max_seconds,
    )
    groups = _latency_groups(target)
    precisions = _timed_precisions(context, bundle)
    reason = _latency_gap(context, bundle, options, groups, precisions)
    if not reason:
        text = f"batches {', '.join(map(str, options.batches))}, of the same files, machine and libraries"
        return RunStep(name="bench", outcome=StepOutcome.REUSED, text=text)

    def work() -> str:
        result = bench_bundle(
            context.directory, groups, options, context.progress, gpu=_ON_GPU, precisions=precisions
        )
        now = Bundle.open(context.directory)
        record = dataclasses.replace(
            read_record(now),
            latency_sha256=now.manifest.results[NEWEST].sha256 if NEWEST in now.manifest.results else None,
            max_seconds=options.max_seconds,
        )
        write_record(context.directory, record)
        names = {sample.config for sample in result.samples}
        return f"{len(names)} candidates, batches {', '.join(map(str, options.batches))} ({reason})"

    return measured_step("bench", work)


def _latency_groups(target: Target) -> tuple[Group, ...]:
    on_cpu, on_gpu = (Group.TORCH, Group.ONNX, Group.OPENVINO), (Group.GPU, Group.ENGINE)
    return {Target.AUTO: (*on_cpu, *on_gpu), Target.CPU: on_cpu, Target.GPU: on_gpu}[target]


def _timed_precisions(context: RunContext, bundle: Bundle) -> tuple[Precision, ...]:
    """Every precision of the bundle, but fp8 only on a GPU: processors emulate it."""
    held = [graph.precision for graph in bundle.manifest.onnx]
    return tuple(p for p in held if p is not Precision.FP8 or context.has_gpu or len(held) == 1)


def _latency_gap(
    context: RunContext,
    bundle: Bundle,
    options: BenchOptions,
    groups: Sequence[Group],
    precisions: Sequence[Precision],
) -> str:
    """Why the newest session does not answer what is asked, or nothing."""
    record = bundle.manifest.results.get(NEWEST)
    if record is None:
        return "none was stored"
    try:
        session = read_session(bundle, record)
    except BundleError as err:
        return err.message
    machine, here = session.machine, context.machine
    if not context.same_software(machine) or (machine.cores, machine.gpus, session.threads) != (
        here.cores,
        here.gpus,
        options.used_threads,
    ):
        return "those stored are of another machine or other libraries"
    selected = select_candidates(
        bundle, groups, threads=options.used_threads, gpu=_ON_GPU, precisions=precisions, modules=False
    )
    timed = {(s.config, s.artifact_sha256, s.batch) for s in session.samples}
    left_out = {item.config for item in session.skipped}
    missing = [
        candidate.config.name
        for candidate in selected.candidates
        for batch in options.batches
        if (candidate.config, candidate.artifact_sha256, batch) not in timed
        and candidate.config not in left_out
        and candidate.batches.refusal(batch) is None
    ]
    if missing:
        return f"not timed yet: {', '.join(dict.fromkeys(missing))}"
    if _longer(read_record(bundle), record.sha256, options.max_seconds) and not _narrow(session):
        return "more time is allowed now"
    return ""


def _longer(record: RunRecord, latency_sha256: str, max_seconds: float) -> bool:
    """Whether the session was measured by a run that allowed less time."""
    known = record.latency_sha256 == latency_sha256 and record.max_seconds is not None
    return known and record.max_seconds is not None and max_seconds > record.max_seconds


def _narrow(session: LatencyResult) -> bool:
    """Whether more rounds would not have been taken: the interval of every ratio is narrow."""
    for sample in session.samples:
        baseline = strongest_baseline(session, sample.batch, sample.timing)
        if baseline is None or baseline is sample or sample.timing not in {Timing.CALL, Timing.COMPUTE}:
            continue
        ratio = ratio_of(baseline, sample, session.repeats)
        if ratio is None or not ratio.narrow:
            return False
    return True
