"""One self-contained HTML file from a bundle's records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.display import displayed, ms_text
from riformer_deploy.quantization.sensitivity import SensitivityReport
from riformer_deploy.reporting.evidence import Evidence
from riformer_deploy.reporting.plots import (
    accuracy_plot,
    latency_plot,
    parity_plot,
    sensitivity_plot,
    tuning_plot,
)
from riformer_deploy.reporting.sections import (
    Cell,
    Section,
    class_section,
    figure_cell,
    file_section,
    mistake_section,
    provenance_section,
    tuning_section,
)
from riformer_deploy.reporting.summary import Choice, choices, not_verified

_TEMPLATES = Path(__file__).with_name("templates")


def render_html(
    evidence: Evidence, *, data: Path | None = None, sensitivity: SensitivityReport | None = None
) -> str:
    """The report of a bundle.

    Args:
        evidence: Of a bundle.
        data: The folder or ``.npz`` file of the accuracy pass's pictures, for thumbnails; None shows none.
        sensitivity: What quantising each layer costs, if it was measured.

    Returns:
        HTML that asks nothing of anybody: styles, script and plots are in it. Every text of a record is
        escaped, and so is what is not visible.

    Raises:
        MissingDependencyError: Jinja2 or matplotlib is not installed.
        OptionError: ``data`` is an ``.npz`` file and not the one that accuracy was measured on.
    """
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    chosen = choices(evidence)
    sections = (
        _latency(evidence, latency_plot(evidence)),
        Section(title="Accuracy against latency", plot=accuracy_plot(evidence, chosen)),
        _accuracy(evidence),
        _parity(evidence),
        _sensitivity(sensitivity),
        *(tuning_section(result, tuning_plot(result)) for result in evidence.tuning),
        class_section(evidence),
        mistake_section(evidence, data),
        provenance_section(evidence),
        file_section(evidence),
    )
    text: str = environment.get_template("report.html.j2").render(
        title=title_of(evidence),
        answers=answers_of(evidence, chosen),
        not_verified=not_verified(evidence),
        sections=[s for s in sections if s.plot or s.rows or s.pictures],
    )
    return text


def _visible(value: object) -> object:
    """Text of a record without what turns the direction of writing, or is no character at all."""
    return displayed(value, longest=sys.maxsize) if type(value) is str else value  # markup is another type


def title_of(evidence: Evidence) -> str:
    """What the model is called: the published variant, else the checkpoint's file."""
    manifest = evidence.manifest
    return str(evidence.path) if manifest is None else manifest.model.variant or manifest.source.file_name


def answers_of(evidence: Evidence, chosen: Sequence[Choice]) -> list[str]:
    """What to ship for every batch size that was timed, or that there is nothing to ship for it."""
    if evidence.latency is None:
        return ["No latency was measured, so nothing is chosen (riformer-deploy bench)."]
    answers = {choice.batch: answer_of(choice) for choice in chosen}
    timed = dict.fromkeys(sample.batch for sample in evidence.latency.samples)
    return [answers.get(batch) or nothing_for(batch) for batch in timed]


def nothing_for(batch: int) -> str:
    """That there is nothing to ship for a batch size."""
    return (
        f"Batch {batch}: nothing is to be shipped: no graph or engine that was timed is known to hold parity "
        "and the accuracy gate."
    )


def answer_of(choice: Choice) -> str:
    """What to ship for a batch size, on what evidence, in a few sentences."""
    fastest = choice.fastest
    text = f"Batch {choice.batch}: ship {choice.file or fastest.name}, run by {fastest.name}: "
    text += f"{ms_text(fastest.summary.median_ms)} ms per call"
    if choice.ratio is not None and choice.baseline is not None:
        span = choice.ratio.ci95
        text += f", {choice.ratio.value:.2f} times as fast as {choice.baseline.name}"
        text += f" (95 % interval {span[0]:.2f} to {span[1]:.2f})" if span else ""
        text += "" if choice.same_rounds else ", which was measured at another time"
        text += "" if choice.ratio.decided else "; which of both is faster is not known"
    text += f". Parity: {choice.parity or 'not verified'}. "
    if choice.accuracy is None:
        return text + "Accuracy: not measured."
    top1 = choice.accuracy.top1
    low, high = top1.ci95_percent
    return (
        text + f"Top-1: {top1.percent:.2f} % ({low:.2f} to {high:.2f}) of {choice.accuracy.images} pictures."
    )


def _latency(evidence: Evidence, plot: str | None) -> Section:
    latency = evidence.latency
    if latency is None:
        return Section(title="Latency")
    machine = latency.machine
    return Section(
        title="Latency",
        text="Medians with 95 % intervals; "
        + "; ".join(
            f"{item.created_utc}: {item.rounds} rounds of {item.repeats} calls"
            for item in evidence.sessions or (latency,)
        )
        + f"; {latency.threads} threads, on {'; '.join((machine.cpu, *machine.gpus))}.",
        plot=plot,
        columns=("model", "timed", "batch", "median ms", "low", "high", "p95", "p99", "images/s", "parity"),
        rows=tuple(
            (
                Cell(text=s.name),
                Cell(text=s.timing),
                figure_cell(s.batch, "d"),
                figure_cell(s.summary.median_ms, ".3f"),
                *(figure_cell(end, ".3f") for end in s.summary.ci95_ms or (None, None)),
                figure_cell(s.summary.p95_ms, ".3f"),
                figure_cell(s.summary.p99_ms, ".3f"),
                figure_cell(s.summary.images_per_s, ".1f"),
                Cell(text=s.parity or "-"),
            )
            for s in latency.samples
        ),
    )


def _accuracy(evidence: Evidence) -> Section:
    result = evidence.accuracy
    if result is None:
        return Section(title="Accuracy")
    drops = {item.config: item for item in result.comparisons}
    return Section(
        title="Accuracy",
        text=f"{result.dataset.location}: {result.dataset.asked} of {result.dataset.total} pictures, "
        f"{len(result.broken)} unusable. Drops are against {result.artifacts[0].name}, picture by picture.",
        columns=("artifact", "top-1 %", "low", "high", "top-5 %", "pictures", "drop, points", "p", "gate"),
        rows=tuple(
            (
                Cell(text=item.name),
                figure_cell(item.top1.percent, ".3f"),
                *(figure_cell(end, ".2f") for end in item.top1.ci95_percent),
                figure_cell(item.top5.percent, ".3f"),
                figure_cell(item.images, "d"),
                figure_cell(drop.drop_points if drop else None, "+.3f"),
                figure_cell(drop.p_value if drop else None, ".3g"),
                Cell(text=drop.status if drop and result.max_drop_points is not None else "-"),
            )
            for item in result.artifacts
            for drop in (drops.get(item.config),)
        ),
    )


def _parity(evidence: Evidence) -> Section:
    inputs = " ".join(dict.fromkeys(f"{r.reference}, on {r.inputs.description}." for r in evidence.parity))
    return Section(
        title="Parity by stage",
        text=f"Reference: {inputs}",
        plot=parity_plot(evidence.candidates),
        columns=("candidate", "output", "SQNR dB", "relative L2", "of tolerance", "verdict"),
        rows=tuple(
            (
                Cell(text=candidate.name),
                Cell(text=item.name),
                figure_cell(item.deviation.sqnr_db, ".1f"),
                figure_cell(item.deviation.relative_l2, ".2e"),
                figure_cell(None if item.tolerance_used is None else 100 * item.tolerance_used, ".1f", " %"),
                Cell(text=candidate.status),
            )
            for candidate in evidence.candidates
            for item in candidate.outputs
        ),
    )


def _sensitivity(report: SensitivityReport | None) -> Section:
    if report is None:
        return Section(title="Sensitivity of layers")
    costs = tuple((item.layer, item.cost.sqnr_db) for item in report.layers)
    return Section(
        title="Sensitivity of layers",
        text=f"{report.precision}, {report.images} images ({report.calibration}).",
        plot=sensitivity_plot(tuple((name, value) for name, value in costs if value is not None)),
        columns=("layer", "SQNR dB", "changed classes %"),
        rows=tuple(
            (
                Cell(text=item.layer),
                figure_cell(item.cost.sqnr_db, ".2f"),
                figure_cell(item.cost.drop_points, ".2f"),
            )
            for item in report.layers
        ),
    )
