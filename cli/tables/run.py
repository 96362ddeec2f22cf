"""A run: what became of each step, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riformer_deploy.common.display import ms_text

from ..output import number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.run_records import RunReport, ShipChoice


def print_run(report: RunReport) -> None:
    """Every step in a line, what to ship as a table, and the answer."""
    for step in report.steps:
        took = f" ({step.seconds:.0f} s)" if step.seconds >= 1 else ""
        say(f"{step.name}: {step.outcome}: {step.text}{took}")
    if report.choices:
        print_table(
            "What to ship (speed-up over PyTorch, 95 % interval)",
            (">batch", "!artifact", ">ms", ">speed-up", ">top-1, %"),
            [row for choice in report.choices for row in _rows(choice)],
        )
    for line in report.answer.splitlines():
        say(line)
    if report.report is not None:
        say(f"Report: {report.report}")


def _rows(choice: ShipChoice) -> tuple[tuple[str, ...], ...]:
    """Two rows: the file, and below it what runs it."""
    span = choice.speed_up_ci95
    return (
        (
            str(choice.batch),
            choice.file,
            ms_text(choice.median_ms),
            "-" if choice.speed_up is None else f"{choice.speed_up:.2f}x",
            number(choice.top1_percent, ".2f"),
        ),
        ("", choice.name, "", "" if span is None else f"{span[0]:.2f} to {span[1]:.2f}", ""),
    )
