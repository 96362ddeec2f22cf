"""Latencies as tables that end in an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from riformer_deploy.backends.graph_state import titled
from riformer_deploy.common.display import ms_text

from ..output import number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.evaluation.latency_comparison import LatencyComparison
    from riformer_deploy.evaluation.latency_rounds import Ratio
    from riformer_deploy.evaluation.results import LatencyResult, LatencySamples
    from riformer_deploy.system.records import GpuState, GpuWatch


def print_latency(result: LatencyResult) -> None:
    """A table a batch size, what to take with care in one line, and which model is the fastest, by how much.

    A speed-up is over the strongest baseline of the same batch size and timing, or, where none was
    measured, over the first model; it is the median of the ratios within the rounds.
    """
    from riformer_deploy.backends.skipped import names_by_reason
    from riformer_deploy.evaluation.latency_comparison import compare_latency

    for batch in dict.fromkeys(sample.batch for sample in result.samples):
        _print_batch(result, [sample for sample in result.samples if sample.batch == batch])
    for reason, names in names_by_reason(result.skipped).items():
        say(f"skipped: {', '.join(names)}: {reason}")
    if result.gpu is not None:
        _print_gpu(result.gpu)
    without = all(_baseline(result, sample) is None for sample in result.samples)
    over = "the first model listed" if without else "the strongest baseline"
    say(f"Speed-up is over {over} of the same batch size and timing, within each round; 95 % intervals.")
    say(f"Machine: {'; '.join((result.machine.cpu, *result.machine.gpus))}; {result.threads} threads")
    if care := _care(result):
        say(f"(!) {care}")
    for comparison in compare_latency(result):
        say(_answer(result, comparison))


def _print_batch(result: LatencyResult, series: list[LatencySamples]) -> None:
    from riformer_deploy.evaluation.results import Timing

    several = len({sample.timing for sample in series}) > 1
    computing = (Timing.CALL, Timing.COMPUTE, Timing.COMPUTE_WARM)
    rounds = (
        max(len(sample.samples_ms) for sample in series if sample.timing is Timing.CALL) // result.repeats
    )
    batch = series[0].batch
    print_table(
        f"Batch {batch}: {rounds} rounds of {result.repeats} calls",
        ("model", *(("!timed",) if several else ()), ">median ms", ">images/s", ">speed-up"),
        [
            (
                titled(sample.name, sample.graph) + (" (failed parity)" if _failed(sample) else ""),
                *((str(sample.timing),) if several else ()),
                ms_text(sample.summary.median_ms) + _span(sample.summary.ci95_ms, ms_text),
                f"{sample.summary.images_per_s:.1f}" if sample.timing in computing else "-",
                _speed_up(result, _baseline(result, sample) or _first(series, sample), sample),
            )
            for sample in series
        ],
    )


def _failed(sample: LatencySamples) -> bool:
    from riformer_deploy.evaluation.results import Status

    return sample.parity is Status.FAILED


def _baseline(result: LatencyResult, sample: LatencySamples) -> LatencySamples | None:
    from riformer_deploy.evaluation.latency_comparison import strongest_baseline

    return strongest_baseline(result, sample.batch, sample.timing)


def _first(series: list[LatencySamples], sample: LatencySamples) -> LatencySamples:
    return next(item for item in series if item.timing is sample.timing)


def _span(interval: tuple[float, float] | None, form: Callable[[float], str]) -> str:
    """An interval on a line of its own; nothing where there is none."""
    return "" if interval is None else f"\n{form(interval[0])} to {form(interval[1])}"


def _speed_up(result: LatencyResult, baseline: LatencySamples, sample: LatencySamples) -> str:
    """How many times faster, with its interval."""
    from riformer_deploy.evaluation.latency_comparison import ratio_of

    if baseline is sample:
        return "1"
    found = ratio_of(baseline, sample, result.repeats)
    return "(!)" if found is None else f"{found.value:.2f}x{_span(found.ci95, '{:.2f}'.format)}"


def _care(result: LatencyResult) -> str | None:
    """What is to be taken with care, in one line for all series; None where nothing is."""
    from riformer_deploy.evaluation.latency_summary import instability

    series = result.samples
    unstable = sum(instability(sample.samples_ms) is not None for sample in series)
    other = [s for s in series if s.warning not in {None, instability(s.samples_ms)}]
    said = []
    if unstable:
        said.append(
            f"{unstable} of {len(series)} series spread or drift by more than a tenth, as on a busy machine: "
            "intervals tell how sure the figures are of it as it was, not of a quiet one"
        )
    if other:
        said.append(
            f"{len(other)} series give no speed-up: "
            + "; ".join(f"{s.name}, {s.timing}, batch {s.batch}: {s.warning}" for s in other)
        )
    return ". ".join(said) or None


def _answer(result: LatencyResult, comparison: LatencyComparison) -> str:
    """What a batch size comes to, in a sentence or two."""
    from riformer_deploy.evaluation.latency_comparison import ratio_of, slower_precisions
    from riformer_deploy.evaluation.results import Status, Timing

    fastest, baseline = comparison.fastest, comparison.baseline
    how = "kernels, L2 cache cold" if comparison.timing is Timing.COMPUTE else "whole calls"
    beaten = baseline is not None and baseline.summary.median_ms < fastest.summary.median_ms
    what = "fastest candidate" if beaten else "fastest"
    match fastest.parity:
        case Status.PASSED:
            what += " that passed parity"
        case Status.FAILED:
            what += ", though it failed parity,"
        case None:
            what += " (parity not verified)"
        case _:
            assert_never(fastest.parity)
    text = f"Batch {comparison.batch}: the {what} is {titled(fastest.name, fastest.graph)}, "
    text += f"{ms_text(fastest.summary.median_ms)} ms"
    if baseline is None:
        text += ", and no baseline was measured"
    elif baseline is not fastest:
        found = ratio_of(baseline, fastest, result.repeats)
        text += (
            f"; it cannot be compared with the strongest baseline, {baseline.name}: see (!)"
            if found is None
            else f", {_times(found)} as fast as the strongest baseline, {baseline.name}"
            + ("" if found.decided else "; which of both is faster is not known")
        )
    text += f" ({how})"
    if comparison.throughput_images_per_s is not None:
        text += f"; {comparison.throughput_images_per_s:.0f} images/s back to back"
    slower = slower_precisions(result, comparison.batch, comparison.timing)
    names = ", ".join(f"{item.sample.name} ({item.ratio.value:.2f}x)" for item in slower)
    return text + "." + (f" Slower than fp32 in the same runtime here: {names}." if slower else "")


def _times(ratio: Ratio) -> str:
    span = "" if ratio.ci95 is None else f" ({ratio.ci95[0]:.2f} to {ratio.ci95[1]:.2f})"
    return f"{ratio.value:.2f}{span} times"


def _print_gpu(watch: GpuWatch) -> None:
    """The GPU before and after a measurement."""
    for when, state in (("before", watch.before), ("after", watch.after)):
        if state is not None:
            say(f"GPU {when}: {_state(state)}")
    if watch.warning is not None:
        say(f"(!) {watch.warning}")


def _state(state: GpuState) -> str:
    def shown(value: float | None) -> str:
        return number(value, ".0f")

    return (
        f"{state.mig or state.name or 'name unknown'}, "
        f"{shown(state.sm_clock_mhz)} of {shown(state.sm_clock_max_mhz)} MHz, "
        f"{shown(state.temperature_c)} C, {shown(state.power_w)} W"
    )
