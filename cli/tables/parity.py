"""Parity as tables, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riformer_deploy.backends.graph_state import titled

from ..output import is_narrow, number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.evaluation.results import CandidateParity, OutputParity, ParityResult

_DISTANCES = (">max abs", ">rel L2", ">SQNR dB", ">cosine", ">top-1", ">of tolerance")
_FEWER = (">rel L2", ">SQNR dB", ">top-1", ">of tolerance")
"""On a narrow screen: the largest difference and the cosine are in the JSON."""


def _output_cells(candidate: CandidateParity, item: OutputParity, columns: Sequence[str]) -> tuple[str, ...]:
    """The cells of an output's row for these columns of ``_DISTANCES``."""
    cells = {
        ">max abs": number(item.deviation.max_abs),
        ">rel L2": number(item.deviation.relative_l2),
        ">SQNR dB": number(item.deviation.sqnr_db, ".1f"),
        ">cosine": number(item.deviation.cosine, ".9f"),
        ">top-1": "-" if item.decisions is None else f"{item.decisions.top1_agreement:.1%}",
        ">of tolerance": number(item.tolerance_used, ".1%"),
    }
    name = titled(candidate.name, candidate.graph)
    return name, item.name, *(cells[column] for column in columns), str(item.status)


def _stage_errors(candidate: CandidateParity) -> list[str]:
    """One a stage; dashes for an engine, whose inside cannot be looked at."""
    if not candidate.stages:
        return ["-"] * 4
    return [number(stage.deviation.relative_l2) for stage in candidate.stages]


def _stages_verdict(candidate: CandidateParity, *, narrow: bool) -> str:
    """The stages' own, whatever the outputs are; a dash where there are none.

    Args:
        candidate: Any.
        narrow: Leave out the block's name, which would be broken; the closing lines say it.
    """
    from riformer_deploy.evaluation.results import Status

    if not candidate.stages:
        return "-"
    block = None if narrow else candidate.first_bad_block
    if all(stage.status is Status.PASSED for stage in candidate.stages):
        return "passed" if block is None else f"passed, {block} within is out"
    return "failed" if block is None else f"failed, first at {block}"


def print_parity(result: ParityResult) -> None:
    """Every output and stage of every candidate, with the limit it was held to, and the verdict."""
    from riformer_deploy.backends.skipped import names_by_reason

    inputs = result.inputs
    say(
        f"Reference: {result.reference}; {sum(inputs.batches)} images of {inputs.image_size_px[0]}x"
        f"{inputs.image_size_px[1]} px in batches {', '.join(map(str, inputs.batches))}, {inputs.description}"
    )
    narrow = is_narrow()
    columns = _FEWER if narrow else _DISTANCES
    print_table(
        "Parity of outputs",
        ("candidate", "!output", *columns, "!verdict"),
        [
            _output_cells(candidate, item, columns)
            for candidate in result.candidates
            for item in candidate.outputs
        ],
    )
    print_table(
        "Parity of stages, relative L2",
        ("candidate", ">stage 1", ">stage 2", ">stage 3", ">stage 4", ">limit", "verdict"),
        [
            (
                titled(candidate.name, candidate.graph),
                *(_stage_errors(candidate)),
                number(candidate.tolerance.stage_relative_l2),
                _stages_verdict(candidate, narrow=narrow),
            )
            for candidate in result.candidates
        ],
    )
    for reason, names in names_by_reason(result.skipped).items():
        say(f"skipped: {', '.join(names)}: {reason}")
    for precision, tolerance in dict.fromkeys((c.precision, c.tolerance) for c in result.candidates):
        limits = []
        if tolerance.elementwise is not None:
            rtol, atol = tolerance.elementwise
            limits.append(f"|difference| <= {atol:g} + {rtol:g} |reference|")
        if tolerance.min_sqnr_db is not None:
            limits.append(f"SQNR >= {tolerance.min_sqnr_db:g} dB")
        stated = "" if tolerance.stated == "default" else " (limits changed by the user)"
        limits.append(f"stages <= {tolerance.stage_relative_l2:g}")
        say(f"Tolerance of {precision}: {', '.join(limits)}{stated}")
    _say_verdict(result)


def _say_verdict(result: ParityResult) -> None:
    """The closing lines: every candidate that failed, with figure and limit, or that none did."""
    from riformer_deploy.evaluation.parity_failures import why_failed

    count = len(result.unverified)
    names = ", ".join(engine.name for engine in result.unverified)
    more = f"; {count} engine{'s' * (count > 1)} NOT verified: {names}" if count else ""
    images = "synthetic images" if result.inputs.seed is not None else result.inputs.description
    for candidate in result.failed:
        scope = "" if candidate.judges_file else ", this runtime's own verdict"
        say(f"Parity: failed: {why_failed(candidate)} (on {images}{scope})")
    if not result.failed:
        say(f"Parity: {result.status}{more}")
    elif result.status == "passed":
        say(f"Parity of the files: passed{more}")
    elif more:
        say(more.removeprefix("; "))
