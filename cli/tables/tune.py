"""A search as tables that end in an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output import number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.evaluation.latency_rounds import Ratio
    from riformer_deploy.quantization.search_records import Race, Trial
    from riformer_deploy.quantization.tune_result import TuneResult


def print_tuning(result: TuneResult) -> None:
    """Every trial, the final run, what could not be built or run, and the answer."""
    from riformer_deploy.quantization.search_answer import FINAL_RUN

    trace = result.trace
    over = "-" if trace.anchor is None else str(trace.trials[trace.anchor].config.precision)
    labelled = result.dataset is not None
    print_table(
        f"Trials; speed-up over plain {over}, when last timed",
        ("trial", ">SQNR dB", ">top-1 %" if labelled else ">changed %", ">speed-up", "!verdict"),
        [
            (
                trial.name,
                _sqnr(trial),
                number(trial.judged.top1_percent if labelled else trial.judged.changed_percent, ".2f"),
                number(trace.speed_up_of(trial.number), ".2f"),
                str(trial.verdict),
            )
            for trial in trace.trials
        ],
    )
    for trial in trace.trials:
        if trial.judged.failure is not None:
            say(f"failed: {trial.name}: {trial.judged.failure}")
    if trace.races and trace.races[-1].purpose == FINAL_RUN:
        for batch in result.batches:
            _print_final(result, trace.races[-1], batch)
    machine = result.machine
    parts = (machine.cpu, ", ".join(machine.instruction_sets), *machine.gpus)
    say(f"Machine: {'; '.join(part for part in parts if part)}; {result.threads} threads")
    if not trace.complete:
        say(f"(!) the time was over before the search was: {len(trace.trials)} trials, {trace.spent_s:.0f} s")
    say(answer_of(result))


def _sqnr(trial: Trial) -> str:
    judged = trial.judged
    if judged.failure is not None:
        return "-"
    return "exact" if judged.sqnr_db is None else f"{judged.sqnr_db:.2f}"


def _print_final(result: TuneResult, final: Race, batch: int) -> None:
    import numpy as np

    trace = result.trace
    rows = []
    for lane in final.lanes:
        if lane.batch == batch:
            ratio = final.speed_ups(lane.trial, result.answer.number).get(batch)
            own = lane.trial == result.answer.number
            rows.append(
                (
                    trace.trials[lane.trial].name,
                    f"{float(np.median(lane.samples_ms)):.3f}",
                    "the answer" if own or ratio is None else _shown(ratio),
                )
            )
    print_table(
        f"Final run, batch {batch}", ("trial", ">median ms", ">the answer is so many times as fast"), rows
    )


def _shown(ratio: Ratio) -> str:
    span = "" if ratio.ci95 is None else " ({:.3f} to {:.3f})".format(*ratio.ci95)
    return f"{ratio.value:.3f}{span}"


def answer_of(result: TuneResult) -> str:
    """The answer in a sentence or two."""
    from riformer_deploy.backends.candidate_config import runtime_title
    from riformer_deploy.quantization.search_answer import FINAL_RUN

    trace, answer, runtime = result.trace, result.answer, runtime_title(result.runtime)
    what = f"{result.file} ({answer.name})"
    if result.engine_file is not None:
        what = f"{result.engine_file} of {what}"
    if str(result.status) == "failed":
        return f"Parity failed: {what} was not put into the bundle, whose models are as they were."
    if trace.confirmed:
        final = trace.races[-1]
        beaten = [trace.trials[n].config.precision for n in trace.rivals if final.times_of(n)]
        gains = [final.speed_up(n, answer.number) for n in trace.rivals if final.times_of(n)]
        least = min(gain for gain in gains if gain is not None)
        return (
            f"Answer: {what}, {least:.2f} times as fast as the fastest of plain {', '.join(beaten)} in "
            f"{runtime}; every interval of the final run is above 1."
        )
    last = [race for race in trace.races if race.purpose == FINAL_RUN]
    slower = [n for n in trace.rivals if any(race.faster(n, answer.number) for race in last)]
    names = " and ".join(trace.trials[number].config.precision for number in slower)
    proven = f" It is faster than plain {names} there." if names else ""
    return (
        f"Answer: {what}, since no tuned form was confirmed to be faster than the plain ones in "
        f"{runtime}.{proven}"
    )
