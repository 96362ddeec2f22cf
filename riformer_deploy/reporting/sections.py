"""Parts of the report: what a part is made of, and those about pictures, files and machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.backends.candidate_config import runtime_title
from riformer_deploy.common.display import displayed
from riformer_deploy.evaluation.results import Status
from riformer_deploy.quantization.tune_result import TuneResult
from riformer_deploy.reporting.evidence import Evidence
from riformer_deploy.reporting.summary import class_accuracy, lasting_files, mistakes, name_of
from riformer_deploy.reporting.thumbnails import Thumbnail, pictures_of, thumbnails


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is shown.
        key: What it is sorted by; None for its text.
    """

    text: str
    key: float | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; what it does not have is left out.

    Attributes:
        title: Its heading.
        text: A sentence below it.
        plot: SVG, the only markup that is put in as it is.
        columns: Names of the table's columns.
        rows: The table's rows.
        pictures: Thumbnails.
    """

    title: str
    text: str = ""
    plot: str | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    pictures: tuple[Thumbnail, ...] = ()


def figure_cell(value: float | None, form: str, unit: str = "") -> Cell:
    """A figure in a format, with what is sorted by; a dash where there is none."""
    return Cell(text="-") if value is None else Cell(text=f"{value:{form}}{unit}", key=value)


def class_section(evidence: Evidence) -> Section:
    """Accuracy by class, the worst first."""
    return Section(
        title="Accuracy by class",
        columns=("class", "name", "right", "pictures", "top-1 %"),
        rows=tuple(
            (
                figure_cell(row.label, "d"),
                Cell(text=_short(row.name or "-")),
                figure_cell(row.right, "d"),
                figure_cell(row.pictures, "d"),
                figure_cell(100 * row.right / row.pictures, ".1f"),
            )
            for row in class_accuracy(evidence)
        ),
    )


_MOST_MISTAKES = 200
_LONGEST_NAME = 200


def mistake_section(evidence: Evidence, data: Path | None) -> Section:
    """The pictures that are wrong and that the model was surest of, with thumbnails where they are given.

    Args:
        evidence: Of a bundle.
        data: The data set of the accuracy pass; None shows no thumbnails.

    Raises:
        OptionError: ``data`` is an ``.npz`` file and not the one that accuracy was measured on.
    """
    wrong = mistakes(evidence)
    if not wrong or evidence.accuracy is None:
        return Section(title="Most confident mistakes")
    first = evidence.accuracy.artifacts[0].name
    names = evidence.manifest.model.class_names if evidence.manifest else None

    def called(label: int) -> str:
        return _short(name_of(names, label) or str(label))

    shown = wrong[:_MOST_MISTAKES]
    scored = all(first in answer.score for answer in shown)
    order = "the surest first" if scored else "in the data set's order: the stored answers have no scores"
    captions = {
        a.picture: f"{_short(a.picture)}: is {called(a.label)}, was taken for {called(a.predicted[first])}"
        + (f", {100 * a.score[first]:.1f} %" if scored else "")
        for a in shown
    }
    return Section(
        title="Most confident mistakes" if scored else "Mistakes",
        text=f"{len(shown)} of {len(wrong)} pictures that {first} has wrong, {order}.",
        columns=("picture", "is", "was taken for", "score %"),
        rows=tuple(
            (
                Cell(text=_short(a.picture)),
                Cell(text=called(a.label)),
                Cell(text=called(a.predicted[first])),
                figure_cell(100 * a.score[first] if scored else None, ".2f"),
            )
            for a in shown
        ),
        pictures=() if data is None else thumbnails(pictures_of(data, evidence), captions),
    )


def _short(name: str) -> str:
    """A name of a picture or class as it is shown; one may be as long as a page."""
    return displayed(name, longest=_LONGEST_NAME, lines=False)


def tuning_section(result: TuneResult, plot: str | None) -> Section:
    """A search: every trial, and the answer.

    Args:
        result: The search.
        plot: Its trials as SVG.
    """
    trace, answer = result.trace, result.answer
    outcome = (
        f"{result.file} is proven to be faster than every plain form"
        if trace.confirmed
        else f"no tuned form was confirmed to be faster than the plain ones, so it is {result.file}"
    )
    if result.status is Status.FAILED:
        outcome = "the answer failed parity and was not put into the bundle"
    part = "" if trace.complete else "; the time was over before the search was"
    return Section(
        title=f"Search of the fastest form in {runtime_title(result.runtime)}",
        text=f"Batches {', '.join(map(str, result.batches))}; {len(trace.trials)} trials in "
        f"{trace.spent_s:.0f} s{part}. Judged on images of {result.calibration}. Answer: {answer.name}; "
        f"{outcome}.",
        plot=plot,
        columns=("trial", "SQNR dB", "changed classes %", "top-1 %", "times as fast", "verdict", "failure"),
        rows=tuple(
            (
                Cell(text=trial.name),
                figure_cell(trial.judged.sqnr_db, ".2f"),
                figure_cell(trial.judged.changed_percent, ".2f"),
                figure_cell(trial.judged.top1_percent, ".2f"),
                figure_cell(trace.speed_up_of(trial.number), ".3f"),
                Cell(text=trial.verdict),
                Cell(text=trial.judged.failure or "-"),
            )
            for trial in trace.trials
        ),
    )


def provenance_section(evidence: Evidence) -> Section:
    """What the bundle was made from, and where each result was measured."""
    manifest = evidence.manifest
    if manifest is None:
        return Section(title="Provenance")
    pre = manifest.model.preprocessing
    facts = {
        "checkpoint": f"{manifest.source.file_name}, {manifest.source.form} form, "
        f"{manifest.source.weights} weights",
        "checkpoint sha256": manifest.source.sha256,
        "written": f"{manifest.created_utc} by riformer-deploy {manifest.tool_version}",
        "preprocessing": f"short edge {pre.resize_short_edge_px or 'not resized'}, crop {pre.crop_px[0]}x"
        f"{pre.crop_px[1]} px, {pre.interpolation}, mean {pre.mean}, std {pre.std}, {pre.channel_order}",
        "libraries": ", ".join(f"{name} {version}" for name, version in manifest.libraries.items()),
    }
    for graph in manifest.onnx:
        if (calibration := graph.lowering.calibration) is not None:
            facts[f"calibration of {graph.file.path}"] = (
                f"{calibration.source}, {calibration.images} images, {calibration.method}"
            )
    for result in (*evidence.parity, *evidence.sessions, evidence.accuracy, *evidence.tuning):
        if result is not None:
            machine = result.machine
            facts[f"{result.kind} of {result.created_utc}"] = "; ".join(
                (
                    machine.cpu,
                    f"{machine.cores} cores",
                    machine.system,
                    f"Python {machine.python}",
                    *machine.gpus,
                )
            )
    return Section(
        title="Provenance",
        columns=("what", "value"),
        rows=tuple((Cell(text=name), Cell(text=value)) for name, value in facts.items()),
    )


def file_section(evidence: Evidence) -> Section:
    """The files of the bundle."""
    files = lasting_files(evidence.manifest)
    return Section(
        title="Files",
        columns=("file", "bytes", "sha256"),
        rows=tuple((Cell(text=f.path), figure_cell(f.size_bytes, "d"), Cell(text=f.sha256)) for f in files),
    )
