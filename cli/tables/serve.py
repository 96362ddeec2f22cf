"""What ``serve check`` found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import output

if TYPE_CHECKING:
    from riformer_deploy.api.serve import ServeCheck


def print_check(result: ServeCheck) -> None:
    """Outputs and latencies of every protocol; problems and notes on stderr."""
    rows = []
    for item in result.transports:
        for what, outputs in (("golden inputs", item.outputs), ("pictures", item.pictures)):
            rows += [
                (
                    item.transport.value,
                    what,
                    parity.name,
                    output.number(parity.deviation.max_abs),
                    output.number(parity.deviation.sqnr_db, ".1f"),
                    output.number(parity.tolerance_used, ".3f"),
                    parity.status.value,
                )
                for parity in outputs
            ]
    columns = ("protocol", "on", "output", ">max abs", ">SQNR dB", ">tolerance used", "status")
    output.print_table(f"{result.artifact} at {result.url}: {result.status}", columns, rows)
    output.print_table(
        "one image a request",
        ("protocol", ">clients", ">median ms", ">p95 ms", ">images/s"),
        [
            (
                item.transport.value,
                str(load.concurrency),
                f"{load.summary.median_ms:.2f}",
                f"{load.summary.p95_ms:.2f}",
                f"{load.images_per_s:.0f}",
            )
            for item in result.transports
            for load in item.loads
        ],
    )
    for item in result.transports:
        for problem in item.problems:
            output.note(f"{item.transport}: {problem}")
    for text in result.notes:
        output.note(text)
    if result.largest_batch_run is not None:
        output.note(f"the largest batch that the server has run is {result.largest_batch_run}")
