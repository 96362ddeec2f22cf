"""Parts of the report: what a part is made of, and those about pictures, files and machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.reporting.evidence import Evidence
from riformer_deploy.reporting.summary import class_accuracy, lasting_files, mistakes, name_of
from riformer_deploy.reporting.thumbnails import Thumbnail, thumbnails


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
                Cell(text=row.name or "-"),
                figure_cell(row.right, "d"),
                figure_cell(row.pictures, "d"),
                figure_cell(100 * row.right / row.pictures, ".1f"),
            )
            for row in class_accuracy(evidence)
        ),
    )


_MOST_MISTAKES = 200


def mistake_section(evidence: Evidence, data: Path | None) -> Section:
    """Pictures that are wrong, with thumbnails where their folder is given."""
    wrong = mistakes(evidence)
    if not wrong or evidence.accuracy is None:
        return Section(title="Mistakes")
    first = evidence.accuracy.artifacts[0].name
    names = evidence.manifest.model.class_names if evidence.manifest else None

    def called(label: int) -> Cell:
        return Cell(text=name_of(names, label) or str(label))

    shown = wrong[:_MOST_MISTAKES]
    return Section(
        title="Mistakes",
        text=f"{len(wrong)} pictures that {first} has wrong"
        + (f"; the first {len(shown)} of them." if len(shown) < len(wrong) else "."),
        columns=("picture", "is", "was taken for"),
        rows=tuple((Cell(text=a.picture), called(a.label), called(a.predicted[first])) for a in shown),
        pictures=() if data is None else thumbnails(data, [a.picture for a in shown]),
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
    for result in (*evidence.parity, evidence.latency, evidence.accuracy):
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
