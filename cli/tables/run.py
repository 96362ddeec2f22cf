"""A run: what became of each step, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output import print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.run_records import RunReport, ShipChoice


def print_run(report: RunReport) -> None:
    """Every step in a line, what to ship as a table, what is not known, and the answer last."""
    for step in report.steps:
        took = f" ({step.seconds:.0f} s)" if step.seconds >= 1 else ""
        say(f"{step.name}: {step.outcome}: {step.text}{took}")
    if report.choices:
        print_table(
            "What to ship",
            (">batch", "!file", "!with", ">median ms", ">speed-up", ">top-1, %"),
            [_row(choice) for choice in report.choices],
        )
    for text in report.refused:
        say(f"refused: {text}")
    for text in report.unverified:
        say(f"not verified: {text}")
    say(report.answer)
    if report.report is not None:
        say(f"Report: {report.report}")


def _row(choice: ShipChoice) -> tuple[str, ...]:
    top1 = "-"
    if choice.top1_percent is not None and choice.top1_ci95_percent is not None:
        top1 = f"{choice.top1_percent:.2f}{_span(choice.top1_ci95_percent)}"
    return (
        str(choice.batch),
        choice.file,
        str(choice.runtime),
        f"{choice.median_ms:.3g}{_span(choice.ci95_ms)}",
        "-" if choice.speed_up is None else f"{choice.speed_up:.2f}x{_span(choice.speed_up_ci95)}",
        top1,
    )


def _span(interval: tuple[float, float] | None) -> str:
    """An interval on a line of its own; nothing where there is none."""
    return "" if interval is None else f"\n{interval[0]:.3g} to {interval[1]:.3g}"
