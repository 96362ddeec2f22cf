"""The graphs of a run: which precisions make sense, which of them the bundle lacks, and their export."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from riformer_deploy.api.export import export_checkpoint
from riformer_deploy.api.export_records import ExportOptions, ExportReport
from riformer_deploy.api.previous_bundle import changed_since
from riformer_deploy.api.run_context import RunContext, intact, read_record, write_record
from riformer_deploy.api.run_records import FailedPrecision, RunStep, StepOutcome
from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import has_precision
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Method, Precision, Target
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import Status
from riformer_deploy.evaluation.resume_log import key_of
from riformer_deploy.export.onnx_export import DEFAULT_OPSET
from riformer_deploy.quantization.calibration import CalibrationConfig, calibration_key
from riformer_deploy.quantization.search_space import asked_of, form_of


@dataclass(frozen=True, kw_only=True)
class GraphsMade:
    """What became of the graphs.

    Attributes:
        steps: What was done.
        notes: What the user should know, such as what was dropped from the bundle.
        failure: The export without which the run cannot go on.
    """

    steps: tuple[RunStep, ...]
    notes: tuple[str, ...] = ()
    failure: ExportReport | None = None


def wanted_precisions(context: RunContext, *, builder: bool) -> tuple[tuple[Precision, ...], str]:
    """The precisions that make sense for the target, and why others are left out.

    bf16 is not among them: it is as fast as fp16 and rounds eight times as coarsely, and what half precision
    cannot hold stays in float32 anyway. A bundle that holds it keeps it.

    Args:
        context: The run.
        builder: Whether engines can be built here.

    Returns:
        The precisions, and one line; empty where nothing is left out.
    """
    found = [Precision.FP32, Precision.FP16]
    engines = context.options.target is not Target.CPU
    able = builder and (
        not context.has_gpu or has_precision(context.driver.gpus[0].compute_capability, Precision.FP8)
    )
    if context.images is None:
        names = "int8 and fp8" if engines else "int8"
        return tuple(found), f"{names}: no calibration images were given (--calibration)"
    found.append(Precision.INT8)
    if engines and able:
        found.append(Precision.FP8)
    elif engines:
        return tuple(found), "fp8: nothing here builds an engine of it or runs one"
    return tuple(found), ""


def open_bundle(context: RunContext) -> Bundle | None:
    """The bundle as it is; None where there is none that can be read, which the export will judge."""
    try:
        return Bundle.open(context.directory)
    except BundleError:
        return None


def make_graphs(context: RunContext, wanted: tuple[Precision, ...]) -> GraphsMade:
    """Export what the bundle lacks; what fails parity is left out, and the rest exported.

    Args:
        context: The run.
        wanted: Which precisions.

    Raises:
        BundleConflictError: The folder holds something else, or graphs would be lost.
        ExportError: ONNX export failed.
    """
    bundle, inputs, notes = _of_this_checkpoint(context), _inputs_key(context), list[str]()
    record = read_record(bundle) if bundle is not None else None
    failed = {
        item.precision: item for item in (record.failed if record else ()) if item.inputs == inputs
    }  # of an earlier run
    steps = [_failed_step(item, "as an earlier run found") for item in failed.values()]
    missing = {p: why for p, why in _missing(context, bundle, wanted).items() if p not in failed}
    made: tuple[Precision, ...] = ()
    while missing:
        report = export_checkpoint(_options(context, bundle, missing), context.progress)
        notes += report.notes
        if report.status is Status.PASSED:
            made = tuple(missing)
            break
        bad = {item.precision: item for item in report.parity.failed if item.judges_file}
        if Precision.FP32 in bad or not bad.keys() <= missing.keys():
            return GraphsMade(steps=tuple(steps), notes=tuple(notes), failure=report)
        for precision, candidate in bad.items():
            del missing[precision]
            item = FailedPrecision(precision=precision, inputs=inputs, reason=why_failed(candidate))
            failed[precision] = item
            steps.append(_failed_step(item, "left out"))
    now = Bundle.open(context.directory)
    reasons = _missing_reasons(missing) if made else ""
    kept = [graph.precision for graph in now.manifest.onnx if graph.precision not in made]
    if made:
        text = f"{', '.join(made)} ({reasons})" + (f"; held already: {', '.join(kept)}" if kept else "")
        steps.append(RunStep(name="export", outcome=StepOutcome.DONE, text=text))
    else:
        text = f"{', '.join(kept)}, of the same checkpoint, preprocessing and calibration images"
        steps.append(RunStep(name="export", outcome=StepOutcome.REUSED, text=text))
    write_record(
        context.directory, dataclasses.replace(record or read_record(now), failed=tuple(failed.values()))
    )
    return GraphsMade(steps=tuple(steps), notes=tuple(notes))


def _of_this_checkpoint(context: RunContext) -> Bundle | None:
    """The bundle, unless it is another checkpoint's: of that nothing is gone on with."""
    bundle, source = open_bundle(context), context.source
    if bundle is None:
        return None
    held = bundle.manifest.source
    return bundle if (held.sha256, held.weights) == (source.sha256, source.weights) else None


def _failed_step(item: FailedPrecision, how: str) -> RunStep:
    return RunStep(
        name=f"export {item.precision}",
        outcome=StepOutcome.FAILED,
        text=f"{how}: parity does not hold: {item.reason}",
    )


def _missing_reasons(missing: Mapping[Precision, str]) -> str:
    return "; ".join(dict.fromkeys(missing.values()))


def _inputs_key(context: RunContext) -> str:
    """A name for all that decides whether a graph holds parity."""
    return key_of(
        {
            "tool": VERSION,
            "libraries": to_jsonable(context.machine.libraries),
            "source": to_jsonable(context.source),
            "model": to_jsonable(context.model),
            "images": None if context.images is None else context.images.content_sha256,
        }
    )


def _missing(
    context: RunContext, bundle: Bundle | None, wanted: tuple[Precision, ...]
) -> dict[Precision, str]:
    """The precisions to export, in their order, each with the reason."""
    if bundle is None:
        return dict.fromkeys(wanted, "none was there")
    manifest = bundle.manifest
    held = {graph.precision: graph for graph in manifest.onnx}
    whole = changed_since(manifest, context.model, context.source)
    if not whole and manifest.model != context.model:
        whole = "its classes had other names"
    damaged = [item.file.path for item in manifest.weights if not intact(bundle, item.file)]
    if not whole and damaged:
        whole = f"{', '.join(damaged)} is not the file that was recorded"
    found = {}
    for precision in Precision:
        graph = held.get(precision)
        if graph is None:
            reason = "new" if precision in wanted else ""
        elif whole:  # what cannot be made again without calibration images is for the export to refuse
            able = not precision.is_quantized or context.images is not None
            reason = whole if able else ""
        else:
            reason = _stale(context, bundle, graph)
        if reason:
            found[precision] = reason
    return found


def _stale(context: RunContext, bundle: Bundle, graph: OnnxArtifact) -> str:
    """Why a graph has to be made again, or nothing."""
    if not intact(bundle, graph.file):
        return f"{graph.file.path} is not the file that was recorded"
    if context.images is None or not graph.lowering.needs_calibration:
        return ""
    record = graph.lowering.calibration
    if record is None or record.key not in _calibration_keys(context.source.weights_sha256, context.images):
        return "calibrated on other images, or by other versions"
    return ""


def _calibration_keys(weights_sha256: str, images: CalibrationSet) -> set[str]:
    """The key of every calibration of these weights on these images, whatever it measured."""
    flags = (False, True)
    return {
        calibration_key(
            weights_sha256,
            images,
            CalibrationConfig(
                method=method,
                equalize=equalize,
                ranges=ranges,
                residual=residual,
                products=products,
                branches=branches,
            ),
        )
        for method, equalize, ranges, residual, products, branches in itertools.product(
            Method, flags, flags, flags, flags, flags
        )
    }


def _options(context: RunContext, bundle: Bundle | None, missing: Mapping[Precision, str]) -> ExportOptions:
    held = {graph.precision: graph for graph in bundle.manifest.onnx} if bundle is not None else {}
    again = [held[precision] for precision in missing if precision in held]
    lowerings = tuple(
        asked_of(held[precision].lowering) if precision in held else _new_config(bundle, precision)
        for precision in missing
    )
    return context.options.export_options(
        lowerings,
        opset=max((DEFAULT_OPSET, *(graph.opset for graph in again))),
        batch=bundle.manifest.onnx[0].batch if bundle is not None else None,
    )


def _new_config(bundle: Bundle | None, precision: Precision) -> LoweringConfig:
    """A precision that the bundle lacks, with the inputs and outputs of its other graphs."""
    if bundle is None:
        return LoweringConfig(precision=precision)
    form = form_of(bundle.manifest.onnx[0].lowering)
    io = Precision.FP32 if precision is Precision.FP32 else form.io
    return dataclasses.replace(form, precision=precision, io=io)
