"""Two bundles or results side by side, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output import number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.reporting.comparison_records import AccuracyChange, ComparisonReport, LatencyChange


def print_comparison(report: ComparisonReport) -> None:
    """What changed, then what was not compared, then the verdict."""
    say(f"A: {report.before}; B: {report.after}")
    if report.files:
        print_table(
            "Files that differ",
            ("!file", "!sha256 in A", "!sha256 in B"),
            [(f.path, (f.before_sha256 or "-")[:16], (f.after_sha256 or "-")[:16]) for f in report.files],
        )
    if report.parity:
        print_table(
            "Parity, each against its own reference",
            ("candidate", "A", "B", ">SQNR dB, A", ">SQNR dB, B"),
            [
                (
                    item.name,
                    item.before or "-",
                    item.after or "-",
                    number(item.before_sqnr_db, ".1f"),
                    number(item.after_sqnr_db, ".1f"),
                )
                for item in report.parity
            ],
        )
    if report.accuracy:
        print_table(
            "Top-1, % (drop in points, 95 % interval)",
            ("artifact", ">A", ">B", ">drop", "measured on"),
            [_accuracy_row(item) for item in report.accuracy],
        )
    if report.latency:
        print_table(
            "Latency, median ms (B over A, 95 % interval)",
            ("model", ">batch", "!timed", ">A", ">B", ">change"),
            [_latency_row(item) for item in report.latency],
        )
    for text in report.notes:
        say(text)
    for text in report.failures:
        say(f"failed: {text}")
    say(f"Comparison: {report.status}")


def _accuracy_row(item: AccuracyChange) -> tuple[str, ...]:
    low, high = item.drop_ci95_points
    return (
        item.name,
        f"{item.before_percent:.3f}",
        f"{item.after_percent:.3f}",
        f"{item.drop_points:+.3f}\n{low:+.2f} to {high:+.2f}",
        f"the same pictures, p {item.p_value:.3g}" if item.p_value is not None else "different pictures",
    )


def _latency_row(item: LatencyChange) -> tuple[str, ...]:
    span = item.slowdown.ci95
    below = "" if span is None else f"\n{100 * (span[0] - 1):+.1f} to {100 * (span[1] - 1):+.1f} %"
    return (
        item.name,
        str(item.batch),
        str(item.timing),
        f"{item.before_ms:.3f}",
        f"{item.after_ms:.3f}",
        f"{100 * (item.slowdown.value - 1):+.1f} %{below}",
    )
