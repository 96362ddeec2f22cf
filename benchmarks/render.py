"""Turn ``results/*.json`` into the tables of ``benchmarks/README.md``, between its two marks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import RESULTS

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.common.serialization import load_json

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- begin: benchmarks/render.py -->", "<!-- end: benchmarks/render.py -->"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "| --- " + "| ---: " * (len(header) - 1) + "|"
    yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    yield ""


def _paragraph(text: str | None) -> Iterator[str]:
    if text:
        yield text
        yield ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _target_row(name: str, target: Any) -> tuple[str, ...]:
    if not isinstance(target, dict):
        return (name, _number(target), "", "")
    limit = f"{target.get('sense', '')} {_number(target['limit'])}" if "limit" in target else ""
    return (name, _number(target["value"]), limit.strip(), "yes" if target["met"] else "NO")


_TIMINGS = ("call", "compute", "compute-warm")


def _latency_rows(figures: Any) -> list[tuple[str, ...]]:
    """One a model and batch size: medians of every timing, and the throughput of inferences back to back."""
    rows: list[tuple[str, ...]] = []
    for entry in figures.get("latency", ()):
        series: dict[tuple[str, int], dict[str, Any]] = {}
        for sample in entry["result"]["samples"]:
            series.setdefault((_name(sample), sample["batch"]), {})[sample["timing"]] = sample
        for (name, batch), timed in series.items():
            shown = [timed.get(timing) for timing in _TIMINGS]
            cells = [_median(sample) for sample in shown]
            rate = "-" if shown[-1] is None else f"{shown[-1]['summary']['images_per_s']:.0f}"
            rows.append((f"{entry['variant']}: {name}", str(batch), *cells, rate))
    return rows


def _name(sample: Any) -> str:
    """What was timed; results of schema 1 hold the name itself."""
    if "name" in sample:
        return str(sample["name"])
    return load_json(CandidateConfig, json.dumps(sample["config"])).name


def _median(sample: Any) -> str:
    """Milliseconds; marked where the series has a warning."""
    if sample is None:
        return "-"
    return f"{sample['summary']['median_ms']:.3f}" + (" (!)" if sample["warning"] else "")


def _floor_rows(figures: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in (figures.get("roofline") or {}).get("rows", ()):
        floor = row["floor"]
        times = (f"{value:.3f}" for value in (row["kernels_ms"], floor["layers_ms"], floor["ideal_ms"]))
        share = f"{row['share_of_floor']:.0%}"
        rows.append((f"{row['variant']}: {row['name']}", str(row["batch"]), *times, share))
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
        header = ("model", "batch", "call ms", "kernels ms, L2 cold", "L2 warm", "images/s, L2 warm")
        yield from _table(header, _latency_rows(record["figures"]))
        yield "(!): the series has a warning (unstable, or launching was not hidden); the file says which."
        yield ""
        floors = _floor_rows(record["figures"])
        if floors:
            header = ("model", "batch", "kernels ms", "floor ms", "ideal ms", "share of floor")
            yield from _table(header, floors)
            yield from _paragraph((record["figures"]["roofline"]).get("note"))
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
