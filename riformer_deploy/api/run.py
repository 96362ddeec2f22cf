"""``run``: from a checkpoint to the decision what to ship, on evidence that a bundle may hold already."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from riformer_deploy.api.export_records import ExportReport
from riformer_deploy.api.report import CARD, HTML, ReportFiles, ReportOptions, report_bundle
from riformer_deploy.api.run_accuracy import measure_accuracy
from riformer_deploy.api.run_answer import answer
from riformer_deploy.api.run_context import RunContext, intact, prepare, read_record, write_record
from riformer_deploy.api.run_engines import builder_of, make_engines
from riformer_deploy.api.run_graphs import make_graphs, open_bundle, wanted_precisions
from riformer_deploy.api.run_latency import measure_latency
from riformer_deploy.api.run_parity import measure_parity
from riformer_deploy.api.run_records import (
    RUN,
    RunOptions,
    RunReport,
    RunStep,
    ShipChoice,
    StepOutcome,
)
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.download import DownloadOptions, named_checkpoint
from riformer_deploy.common.enums import Target, WeightSet
from riformer_deploy.common.errors import MissingDependencyError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.preprocessing_changes import AS_FOUND, parse_changes
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import Status
from riformer_deploy.evaluation.resume_log import key_of
from riformer_deploy.model.variants import find_variant

__all__ = [
    "AS_FOUND",
    "DownloadOptions",
    "RunOptions",
    "RunReport",
    "RunStep",
    "ShipChoice",
    "Status",
    "StepOutcome",
    "Target",
    "WeightSet",
    "find_variant",
    "named_checkpoint",
    "parse_changes",
    "run_checkpoint",
]

_ABOUT = {HTML, CARD, f"{RUN}.json"}
"""Files that are written about the others."""


def run_checkpoint(options: RunOptions, progress: Progress = silent) -> RunReport:
    """Deploy a checkpoint: export, build, verify, measure, and decide what to ship.

    A step whose result the bundle holds, of the same inputs, is not done again; so a run that was interrupted
    goes on where it was. What cannot be done here is a step that was skipped, with the reason.

    Args:
        options: What to deploy, and where to.
        progress: Called with each step.

    Returns:
        What was done, and the answer. Its status is ``failed`` where parity of the files does not hold (then
        nothing was written), or where nothing that was timed may be shipped.

    Raises:
        CheckpointError: The checkpoint is not usable.
        CalibrationError: The calibration images cannot be used.
        DatasetError: The labelled pictures cannot be used.
        BundleConflictError: The folder holds something else, another checkpoint's bundle, or graphs that
            would be lost.
        BundleIntegrityError: A file of the bundle was changed that the run cannot make again.
        MissingDependencyError: ONNX Runtime is not installed.
        OptionError: An option cannot be honoured.
        ExportError: ONNX export failed.
    """
    context = prepare(options, progress)
    flavor, no_builder = builder_of(context)
    wanted, left_out = wanted_precisions(context, builder=flavor is not None)
    steps = [_skipped("export", left_out)] if left_out else []
    start = time.monotonic()
    graphs = make_graphs(context, wanted)
    steps += _timed(graphs.steps, time.monotonic() - start)
    if graphs.failure is not None:
        return _failed(context, tuple(steps), graphs.failure, graphs.notes)
    steps += [_skipped("build", no_builder)] if flavor is None else make_engines(context, flavor)
    for measure in (measure_parity, measure_accuracy, measure_latency):
        steps.append(measure(context))
    step, files = _report(context)
    decided = answer(context, tuple(steps))
    return RunReport(
        status=decided.status,
        checkpoint=context.source.file_name,
        source_sha256=context.source.sha256,
        target=options.target,
        bundle=os.fspath(options.output),
        steps=(*steps, step),
        choices=decided.choices,
        refused=decided.refused,
        unverified=decided.unverified,
        answer=decided.text,
        next_command=decided.next_command,
        report=files.html if files else None,
        model_card=files.model_card if files else None,
        notes=tuple(dict.fromkeys((*context.notes, *graphs.notes))),
    )


def _skipped(name: str, reason: str) -> RunStep:
    return RunStep(name=name, outcome=StepOutcome.SKIPPED, text=reason)


def _timed(steps: tuple[RunStep, ...], seconds: float) -> list[RunStep]:
    """Steps that were one piece of work; the last of them, which names what was made, gets its time."""
    return [*steps[:-1], *(dataclasses.replace(step, seconds=seconds) for step in steps[-1:])]


def _report(context: RunContext) -> tuple[RunStep, ReportFiles | None]:
    """Write the report and the model card, unless they are of the evidence that there is now."""
    bundle = Bundle.open(context.directory)
    results = bundle.manifest.results
    hashes = {item.path: item.sha256 for item in bundle.manifest.files if item.path not in _ABOUT}
    evidence = key_of({"tool": VERSION, **hashes})
    record = read_record(bundle)
    html, card = context.directory / HTML, context.directory / CARD
    there = all(kind in results and intact(bundle, results[kind]) for kind in (HTML, CARD))
    if there and record.reported == evidence:
        files = ReportFiles(
            html=os.fspath(html), size_bytes=results[HTML].size_bytes, model_card=os.fspath(card)
        )
        return RunStep(name="report", outcome=StepOutcome.REUSED, text="of the same evidence"), files
    data = context.options.data
    pictures = Path(data) if data is not None and Path(data).is_dir() else None
    start = time.monotonic()
    context.progress("writing the report")
    try:
        files = report_bundle(context.directory, ReportOptions(data=pictures))
    except MissingDependencyError as err:
        return _skipped("report", f"{err.message} {err.remedy}"), None
    write_record(context.directory, dataclasses.replace(record, reported=evidence))
    step = RunStep(
        name="report",
        outcome=StepOutcome.DONE,
        text=f"{HTML} and {CARD}",
        seconds=time.monotonic() - start,
    )
    return step, files


def _failed(
    context: RunContext, steps: tuple[RunStep, ...], export: ExportReport, notes: tuple[str, ...]
) -> RunReport:
    """The report of a run that ended with an export whose parity does not hold."""
    refused = tuple(why_failed(item) for item in export.parity.failed if item.judges_file)
    said = [f"Parity does not hold, so nothing was written: {'; '.join(refused)}.", *export.advice]
    there = open_bundle(context) is not None
    if there:
        said.append(f"{context.directory} is as it was.")
    return RunReport(
        status=Status.FAILED,
        checkpoint=context.source.file_name,
        source_sha256=context.source.sha256,
        target=context.options.target,
        bundle=os.fspath(context.options.output) if there else None,
        steps=(*steps, RunStep(name="export", outcome=StepOutcome.FAILED, text="parity does not hold")),
        choices=(),
        refused=refused,
        unverified=(),
        answer="\n".join(said),
        next_command=("inspect", os.fspath(context.options.checkpoint)),
        report=None,
        model_card=None,
        notes=tuple(dict.fromkeys((*context.notes, *notes))),
    )
