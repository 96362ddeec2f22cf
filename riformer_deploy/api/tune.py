"""``tune``: search for the fastest artifact of a bundle's model on this machine that holds a gate."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from riformer_deploy.api.previous_bundle import PreviousBundle, read_previous_bundle, refuse_losses
from riformer_deploy.api.tune_artifacts import RUNTIMES, Built, TuneSetup
from riformer_deploy.api.tune_inputs import TuneOptions, check_bundle, identity_of, labelled_pictures, task_of
from riformer_deploy.api.tune_judge import LiveJudge
from riformer_deploy.api.tune_landing import Landing, land
from riformer_deploy.backends.candidates import require_backends
from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.bundle.results import recording_failures, store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import check_target
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleError, GateError, RuntimeFailureError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.common.serialization import RecordError, load_json
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.evaluation.accuracy_results import DatasetRecord
from riformer_deploy.evaluation.record_log import RecordLog
from riformer_deploy.evaluation.results import RESULT_SCHEMA, Status
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.search import search
from riformer_deploy.quantization.search_log import LoggedJudge, SearchStep
from riformer_deploy.quantization.search_records import Judge, SearchGate, SearchTrace, shown_figures
from riformer_deploy.quantization.tune_result import KINDS, TuneResult
from riformer_deploy.system.cuda_driver import query_driver
from riformer_deploy.system.machine import describe_machine

__all__ = ["Group", "SearchGate", "Status", "TuneOptions", "TuneResult", "tune_bundle"]

_LOG = logging.getLogger(__name__)


def tune_bundle(
    directory: Path | str, options: TuneOptions, progress: Progress = silent, *, tell: Progress = silent
) -> TuneResult:
    """``tune``: find the fastest artifact on this machine that holds a gate, and put it into the bundle.

    It is one that is proven to be faster than the plain fp32, fp16 and bf16 of the same runtime; where none
    is, one of these, which none of the others is proven to be faster than. While the search runs, the bundle
    also holds its resume log, so that an interrupted one is taken up again. Where the bundle holds the answer
    already, nothing is run.

    Args:
        directory: The bundle.
        options: For what, on what and for how long.
        progress: Called with each step.
        tell: Called where the answer is the one that the bundle holds already, with that and with what the
            user should know of the images; the answer's notes tell what was done back then.

    Raises:
        BundleError: It is not a bundle, a file was changed, or another process is at the same search.
        CalibrationError: The calibration images cannot be used.
        DatasetError: The labelled pictures cannot be found, or their labels do not fit the model.
        OptionError: An option cannot be honoured.
        GateError: Not even a plain form holds the gate.
        RuntimeFailureError: There is no GPU for engines, no plain form runs, or the reference cannot be run.
        MissingDependencyError: The target is not installed.
    """
    require_backends((options.group,))
    if options.group is Group.ENGINE and not (driver := query_driver()).gpus:
        raise RuntimeFailureError(
            f"Engines are tuned on the GPU that runs them, and there is none here: {driver.problem}.",
            remedy="Run it on that machine, or tune for --with onnx or openvino.",
        )
    require("onnxruntime")  # the parity report runs the file
    bundle = Bundle.open(Path(directory))
    manifest = bundle.manifest
    base = check_target(bundle.directory, manifest.source, force=False)
    check_bundle(manifest, options)
    refuse_losses(bundle.directory, _previous(bundle))
    source = CalibrationSource(source=options.calibration, skip_bad=options.skip_bad)
    images = source.open(manifest.model.preprocessing, "tune")
    dataset = labelled_pictures(manifest, options)
    key = identity_of(manifest, options, images, dataset)
    kind = KINDS[RUNTIMES[options.group]]
    if not options.again and (stored := _stored(bundle, kind, key)) is not None:
        for text in (
            *images.warnings,
            f"the bundle holds this answer, of {stored.created_utc}; --again searches anew",
        ):
            tell(text)
        return stored
    folded = fold(stored_model(bundle, manifest.reference, torch.float32))
    setup = TuneSetup(
        bundle=bundle, model=folded, images=images, group=options.group, batches=options.batches,
        threads=options.used_threads, dataset=dataset,
    )  # fmt: skip
    task = task_of(manifest, options, quantizable(folded))
    with tempfile.TemporaryDirectory(prefix="riformer-tune-") as work:
        judge = LiveJudge(setup, Path(work), progress)
        with _logged(judge, bundle.directory, key) as logged:
            trace = search(task, logged, progress)
            if trace.answer is not None:
                run = _Run(setup=setup, options=options, judge=judge, key=key, base=base)
                return run.finish(trace, trace.answer, progress)
    raise _without_answer(trace, options.group)


def _previous(bundle: Bundle, made: Sequence[Precision] = ()) -> PreviousBundle:
    """What of a bundle stays beside new graphs of some precisions."""
    manifest = bundle.manifest
    return read_previous_bundle(
        bundle.directory, manifest.model, manifest.source, made, manifest.onnx[0].batch
    )


def _stored(bundle: Bundle, kind: str, key: str) -> TuneResult | None:
    """The bundle's answer to the same question, if its artifact is still there."""
    record = bundle.manifest.results.get(kind)
    if record is None:
        return None
    try:
        found = load_json(TuneResult, bundle.text(record))
    except (BundleError, RecordError, UnicodeDecodeError) as err:
        _LOG.warning("%s cannot be read, so the search is done again: %s", record.path, err)
        return None
    held = {graph.file.sha256 for graph in bundle.manifest.onnx}
    engines = {engine.file.sha256 for engine in bundle.manifest.engines}
    there = found.artifact_sha256 in held and (found.engine_file is None or found.engine_sha256 in engines)
    return found if found.key == key and (there or found.status is Status.FAILED) else None


@contextlib.contextmanager
def _logged(judge: Judge, directory: Path, key: str) -> Iterator[Judge]:
    """The judge with a resume log in the bundle's folder, removed once the search is through."""
    try:
        log = RecordLog(
            directory / f".tune-{key[:16]}.jsonl", key, SearchStep, lambda _step, _before: True,
            "search for the same answer",
        )  # fmt: skip
    except OSError as err:
        _LOG.warning("the search cannot be taken up again if it is interrupted: %s", err)
        yield judge
        return
    if log.records:
        _LOG.warning("taking up an interrupted search: %d steps are done", len(log.records))
    finished = False
    try:
        yield LoggedJudge(judge, log)
        finished = True
    finally:
        log.close(finished=finished)


def _without_answer(trace: SearchTrace, group: Group) -> GateError | RuntimeFailureError:
    """Why not even a plain form can be shipped."""
    details = [f"{trial.name}: {shown_figures(trial.judged)}" for trial in trace.trials]
    if all(trial.judged.failure is not None for trial in trace.trials):
        return RuntimeFailureError(
            f"Not even a plain form runs with {group} on this machine.",
            details=details,
            remedy="Choose another --with, or see `riformer-deploy doctor`.",
        )
    return GateError(
        "Not even a plain form holds the gate on this machine.",
        details=details,
        remedy="Loosen --min-sqnr or --max-drop.",
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A search that is being brought to its end."""

    setup: TuneSetup
    options: TuneOptions
    judge: LiveJudge
    key: str
    base: str | None

    def finish(self, trace: SearchTrace, answer: int, progress: Progress) -> TuneResult:
        """Put the answer into the bundle, unless it is there."""
        bundle = self.setup.bundle
        progress("building the answer")
        built = self.judge.builder.built(trace.trials[answer].config)
        runtime = RUNTIMES[self.options.group]
        engines = built.bundle.manifest.engines

        def result_of(notes: tuple[str, ...], status: Status) -> TuneResult:
            return self._result(trace, built, notes, status)

        if built.graph in bundle.manifest.onnx and not engines:
            result = result_of((), Status.PASSED)
        else:
            landing = Landing(
                bundle=bundle,
                built=built,
                previous=_previous(bundle, (built.graph.precision,)),
                images=self.setup.images,
                runtime=runtime,
                kind=KINDS[runtime],
                base=self.base,
            )
            result = land(landing, result_of, progress)
            if result.status is Status.PASSED:
                return result
        with recording_failures("tune"):
            store_result(bundle, KINDS[runtime], result)
        return result

    def _result(self, trace: SearchTrace, built: Built, notes: tuple[str, ...], status: Status) -> TuneResult:
        images, dataset, manifest = self.setup.images, self.setup.dataset, built.bundle.manifest
        return TuneResult(
            schema=RESULT_SCHEMA,
            kind="tune",
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            key=self.key,
            machine=describe_machine(),
            runtime=RUNTIMES[self.options.group],
            threads=self.options.used_threads,
            batches=self.options.batches,
            calibration=images.source,
            calibration_images=images.count,
            random=images.random,
            dataset=None
            if dataset is None
            else DatasetRecord(
                location=dataset.location,
                layout=dataset.layout,
                identity=dataset.identity,
                total=dataset.total,
                asked=len(dataset),
                notes=dataset.notes,
            ),
            reference_top1_percent=self.judge.reference_top1_percent,
            gate=self.options.gate,
            max_seconds=self.options.max_seconds,
            trace=trace,
            file=built.graph.file.path,
            artifact_sha256=built.graph.file.sha256,
            engine_file=manifest.engines[0].file.path if manifest.engines else None,
            engine_sha256=manifest.engines[0].file.sha256 if manifest.engines else None,
            notes=(*images.warnings, *notes),
            status=status,
        )
