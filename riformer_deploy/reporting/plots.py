"""Plots as SVG that stands in a page: no fonts, no references, and the page's own colour of text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from riformer_deploy.common.dependencies import require
from riformer_deploy.evaluation.latency_comparison import compare_latency
from riformer_deploy.evaluation.results import CandidateParity
from riformer_deploy.quantization.search_records import TrialVerdict
from riformer_deploy.quantization.tune_result import TuneResult
from riformer_deploy.reporting.evidence import Evidence
from riformer_deploy.reporting.summary import Choice, accuracy_of

_STYLE = {
    "svg.fonttype": "none",  # text stays text, which can be searched and is small
    "text.parse_math": False,  # a $ in a name is a $
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.framealpha": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}
_MARKERS = "osD^vP*Xh<>"


def _svg(draw: Callable[[Any], None], salt: str) -> str:
    """One plot; ``salt`` keeps the ids of several plots of a page apart."""
    matplotlib = require("matplotlib")
    figure_of = require("matplotlib", "figure").Figure
    stream = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = figure_of(figsize=(7.2, 3.8), layout="constrained")
        draw(figure.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    svg = text[text.index("<svg") :]  # without the document type, which names an address
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[0-9.]+pt" height="[0-9.]+pt" ', "", svg, count=1)
    for name in set(re.findall(r'\bid="([^"]+)"', svg)):  # ids are the page's, and there are several plots
        svg = svg.replace(f'id="{name}"', f'id="{salt}-{name}"').replace(f"#{name}", f"#{salt}-{name}")
    return re.sub(r"#000000|\bblack\b", "currentColor", svg)


_FINE = (1.0, 2.0, 5.0)


def _plain_ticks(axis: Any, subs: tuple[float, ...]) -> None:
    """Ticks of a logarithmic axis as plain figures; matplotlib's own are mathematical markup.

    Args:
        axis: Logarithmic.
        subs: Which multiples of the powers of ten have one.
    """
    ticker = require("matplotlib", "ticker")
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def latency_plot(evidence: Evidence) -> str | None:
    """Milliseconds by batch size with 95 % intervals, both on a log scale; None without latencies."""
    latency = evidence.latency
    if latency is None:
        return None
    timings = {comparison.batch: comparison.timing for comparison in compare_latency(latency)}
    series: dict[str, list[tuple[int, float, float, float]]] = {}
    for sample in latency.samples:
        if timings.get(sample.batch) is sample.timing:
            median = sample.summary.median_ms
            low, high = sample.summary.ci95_ms or (median, median)
            series.setdefault(sample.name, []).append((sample.batch, median, median - low, high - median))

    def draw(axes: Any) -> None:
        for number, (name, points) in enumerate(series.items()):
            batches, medians, below, above = zip(*sorted(points), strict=True)
            axes.errorbar(
                batches, medians, (below, above), label=name, marker=_MARKERS[number % 11], capsize=3, lw=1
            )
        axes.set(xlabel="batch", ylabel="ms per call", xscale="log", yscale="log")
        _plain_ticks(axes.yaxis, _FINE)
        axes.set_xticks(sorted(timings), map(str, sorted(timings)))
        axes.xaxis.set_minor_locator(require("matplotlib", "ticker").NullLocator())
        axes.figure.legend(loc="outside right upper", fontsize=8)

    return _svg(draw, "latency")


def accuracy_plot(evidence: Evidence, chosen: tuple[Choice, ...]) -> str | None:
    """Top-1 with its 95 % interval against milliseconds of the smallest batch; None without both.

    Args:
        evidence: Of a bundle.
        chosen: What is to be shipped; that of the smallest batch is circled.
    """
    if not chosen or evidence.latency is None:
        return None
    choice = chosen[0]
    points = [
        (sample.name, sample.summary.median_ms, found.top1)
        for sample in evidence.latency.samples
        if (sample.batch, sample.timing) == (choice.batch, choice.fastest.timing)
        and (found := accuracy_of(evidence, sample.config)) is not None
    ]
    if not points:
        return None

    def draw(axes: Any) -> None:
        for number, (name, median, share) in enumerate(points):
            low, high = share.ci95_percent
            span = ([max(share.percent - low, 0)], [max(high - share.percent, 0)])
            axes.errorbar(
                [median], [share.percent], span, label=name, marker=_MARKERS[number % 11], capsize=3, ls=""
            )
            if name == choice.fastest.name:
                axes.plot(
                    [median], [share.percent], "o", ms=16, mfc="none", mec="black", label="to be shipped"
                )
        axes.set(xscale="log", xlabel=f"ms per call, batch {choice.batch}", ylabel="top-1, %")
        _plain_ticks(axes.xaxis, _FINE)
        axes.figure.legend(loc="outside right upper", fontsize=8)

    return _svg(draw, "accuracy")


def parity_plot(candidates: tuple[CandidateParity, ...]) -> str | None:
    """Relative L2 error of each stage on a log scale; None where nobody has stages."""
    shown = [
        (c.name, [(s.stage, s.deviation.relative_l2) for s in c.stages if s.deviation.relative_l2])
        for c in candidates
    ]
    shown = [(name, points) for name, points in shown if points]
    if not shown:
        return None

    def draw(axes: Any) -> None:
        for number, (name, points) in enumerate(shown):
            stages, errors = zip(*points, strict=True)
            axes.plot(stages, errors, label=name, marker=_MARKERS[number % 11], lw=1)
        axes.set(yscale="log", xlabel="stage", ylabel="relative L2 error")
        _plain_ticks(axes.yaxis, (1.0,))
        axes.set_xticks([1, 2, 3, 4])
        axes.figure.legend(loc="outside right upper", fontsize=8)

    return _svg(draw, "parity")


_VERDICTS = {
    TrialVerdict.PLAIN: "plain",
    TrialVerdict.OUTSIDE: "outside the gate",
    TrialVerdict.NOT_BETTER: "no better",
    TrialVerdict.NOT_COMPARED: "not compared",
    TrialVerdict.BETTER: "better in its precision",
}


def tuning_plot(result: TuneResult) -> str | None:
    """SQNR against the speed-up over the plain form: the trials of a search, and the line of the best ones.

    Args:
        result: A search; trials that were never timed, or are exact, have no place in the plot.
    """
    trace = result.trace
    points = [
        (speed_up, trial.judged.sqnr_db, trial)
        for trial in trace.trials
        if (speed_up := trace.speed_up_of(trial.number)) is not None and trial.judged.sqnr_db is not None
    ]
    if len(points) < 2 or trace.anchor is None:
        return None
    best: list[tuple[float, float]] = []
    for speed_up, sqnr, _ in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not best or sqnr > best[-1][1]:  # nothing faster is as accurate
            best.append((speed_up, sqnr))

    def draw(axes: Any) -> None:
        axes.step(*zip(*best, strict=True), where="pre", lw=1, label="best trade-offs")
        for number, (verdict, label) in enumerate(_VERDICTS.items()):
            if shown := [(x, y) for x, y, trial in points if trial.verdict is verdict]:
                axes.plot(*zip(*shown, strict=True), _MARKERS[number], ms=5, label=label)
        for x, y, trial in points:
            if trial is result.answer:
                axes.plot([x], [y], "o", ms=16, mfc="none", mec="black", label="the answer")
        if (least := result.gate.min_sqnr_db) is not None:
            axes.axhline(least, lw=1, ls=":", label="the gate")
        plain = trace.trials[trace.anchor or 0].config.precision
        axes.set(xlabel=f"times as fast as plain {plain}", ylabel="SQNR, dB")
        axes.figure.legend(loc="outside right upper", fontsize=8)

    return _svg(draw, f"tuning-{result.runtime}")


def sensitivity_plot(costs: tuple[tuple[str, float], ...]) -> str | None:
    """The layers whose quantisation costs most, as SQNR of the logits in dB; None where there are none.

    Args:
        costs: Layer and SQNR, the costliest first.
    """
    if not costs:
        return None
    names, values = zip(*reversed(costs[:20]), strict=True)

    def draw(axes: Any) -> None:
        axes.barh(names, values, height=0.7)
        axes.set(xlabel="SQNR of the logits with this layer alone quantised, dB")
        axes.tick_params(axis="y", labelsize=7)

    return _svg(draw, "sensitivity")
