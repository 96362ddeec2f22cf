"""Turn ``results/*.json`` into the tables of ``benchmarks/README.md``, between its two marks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import RESULTS

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- begin: benchmarks/render.py -->", "<!-- end: benchmarks/render.py -->"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "| --- " + "| ---: " * (len(header) - 1) + "|"
    yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    yield ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _target_row(name: str, target: Any) -> tuple[str, ...]:
    if not isinstance(target, dict):
        return (name, _number(target), "", "")
    limit = f"{target.get('sense', '')} {_number(target['limit'])}" if "limit" in target else ""
    return (name, _number(target["value"]), limit.strip(), "yes" if target["met"] else "NO")


def _latency_rows(figures: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in figures.get("latency", ()):
        for sample in entry["result"]["samples"]:
            name = f"{entry['what']}: {sample['name']}" + (" (unstable)" if sample["warning"] else "")
            summary = sample["summary"]
            times = (f"{summary[key]:.3f}" for key in ("median_ms", "p99_ms"))
            rate = f"{summary['images_per_s']:.0f}"
            rows.append((name, str(sample["batch"]), str(sample["timing"]), *times, rate))
    return rows


def _section(record: Any) -> Iterator[str]:
    machine = record["machine"]
    gpu = record.get("gpu")
    where = gpu["name"] if isinstance(gpu, dict) else f"{machine['cpu']}, {machine['cores']} cores"
    yield f"### {record['benchmark']}"
    yield ""
    yield f"{record['what'].rstrip('.')}. Measured {record['created_utc'][:10]} on {where}."
    yield ""
    rows = [_target_row(name, target) for name, target in record["targets"].items()]
    yield from _table(("figure", "value", "target", "met"), rows)
    if record["benchmark"] == "gpu_suite":
        header = ("model", "batch", "timed", "median ms", "p99 ms", "images/s")
        yield from _table(header, _latency_rows(record["figures"]))
        yield "Left out:"
        yield ""
        yield from (f"- {' '.join(text.split())}" for text in record["left_out"])
        yield ""


def rendered(results: Path) -> str:
    """The tables of every result, as Markdown.

    Args:
        results: The folder of the JSON files.
    """
    lines = [BEGIN, ""]
    for path in sorted(results.glob("*.json")):
        lines += _section(json.loads(path.read_text(encoding="utf-8")))
    if not (results / "gpu_suite.json").exists():
        lines += ["### gpu_suite", "", "Not measured so far: no machine with an NVIDIA GPU was at hand.", ""]
    return "\n".join([*lines, END])


def with_tables(text: str, results: Path) -> str:
    """The README with its tables made anew.

    Args:
        text: The README.
        results: The folder of the JSON files.

    Raises:
        ValueError: The README has not the two marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README needs the marks {BEGIN} and {END}")
    return before + rendered(results) + after


def main() -> int:
    """Rewrite the README; with ``--check``, only say whether it is up to date."""
    text = README.read_text(encoding="utf-8")
    wanted = with_tables(text, RESULTS)
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
