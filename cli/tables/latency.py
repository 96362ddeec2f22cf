"""Latencies as a table that ends in an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riformer_deploy.backends.graph_state import titled

from ..output import number, print_table, say

if TYPE_CHECKING:
    from riformer_deploy.evaluation.latency_comparison import LatencyComparison
    from riformer_deploy.evaluation.results import LatencyResult, LatencySamples, Timing
    from riformer_deploy.system.nvml import GpuState, GpuWatch


def print_latency(result: LatencyResult) -> None:
    """Every model, batch size and timing, and how the fastest one compares with the strongest baseline.

    A speed-up is over the strongest baseline of the same batch size and timing, or, where none was
    measured, over the first model.
    """
    from riformer_deploy.evaluation.latency_comparison import compare_latency, strongest_baseline
    from riformer_deploy.evaluation.results import Timing

    computing = (Timing.CALL, Timing.COMPUTE, Timing.COMPUTE_WARM)

    measured_against: dict[tuple[int, Timing], LatencySamples] = {}
    for sample in result.samples:
        strongest = strongest_baseline(result, sample.batch, sample.timing)
        measured_against.setdefault((sample.batch, sample.timing), strongest or sample)
    print_table(
        f"Milliseconds per call: {result.rounds} rounds of {result.repeats} calls, {result.threads} threads",
        (
            "model",
            "timed",
            ">batch",
            ">median",
            ">95 % interval",
            ">p90",
            ">p95",
            ">p99",
            ">images/s",
            ">speed-up",
        ),
        [
            (
                titled(sample.name, sample.graph) + (" (!)" if sample.warning else ""),
                str(sample.timing),
                str(sample.batch),
                _ms(sample.summary.median_ms),
                "-" if sample.summary.ci95_ms is None else " to ".join(map(_ms, sample.summary.ci95_ms)),
                _ms(sample.summary.p90_ms),
                _ms(sample.summary.p95_ms),
                _ms(sample.summary.p99_ms),
                f"{sample.summary.images_per_s:.1f}" if sample.timing in computing else "-",
                _speed_up(measured_against[sample.batch, sample.timing], sample),
            )
            for sample in result.samples
        ],
    )
    for sample in result.samples:
        if sample.warning:
            say(f"(!) {sample.name}, {sample.timing}, batch {sample.batch}: unstable: {sample.warning}")
    for item in result.skipped:
        say(f"skipped: {item.name}: {item.reason}")
    if result.gpu is not None:
        _print_gpu(result.gpu)
    without = sum(strongest_baseline(result, *key) is None for key in measured_against)
    over = "the first model listed" if without == len(measured_against) else "the strongest baseline"
    rest = " (the first model listed where there is none)" if 0 < without < len(measured_against) else ""
    say(
        f"Speed-up is over {over} of the same batch size and timing{rest}. "
        f"Machine: {'; '.join((result.machine.cpu, *result.machine.gpus))}"
    )
    for comparison in compare_latency(result):
        say(_answer(comparison))


def _speed_up(baseline: LatencySamples, sample: LatencySamples) -> str:
    """How many times faster; nothing to quote where either was unstable."""
    from riformer_deploy.evaluation.latency_comparison import speed_up

    found = speed_up(baseline, sample)
    return "unstable" if found is None else f"{found:.2f}x"


def _answer(comparison: LatencyComparison) -> str:
    """What a batch size comes to, in a sentence."""
    from riformer_deploy.evaluation.results import Timing

    fastest, baseline = comparison.fastest, comparison.baseline
    how = "kernels, L2 cache cold" if comparison.timing is Timing.COMPUTE else "whole calls"
    name = titled(fastest.name, fastest.graph)
    beaten = baseline is not None and baseline.summary.median_ms < fastest.summary.median_ms
    what = "the fastest candidate" if beaten else "the fastest"
    text = f"Batch {comparison.batch}: {name} is {what}, {_ms(fastest.summary.median_ms)} ms"
    if baseline is None:
        text += ", and no baseline was measured"
    elif baseline is not fastest:
        found = comparison.speed_up
        text += (
            f"; it cannot be compared with the strongest baseline, {baseline.name}: see (!)"
            if found is None
            else f", {found:.2f} times as fast as the strongest baseline, {baseline.name}"
            if found >= 1
            else f", slower than the strongest baseline, {baseline.name}, by a factor of {1 / found:.2f}"
        )
    text += f" ({how})"
    if comparison.throughput_images_per_s is not None:
        text += f"; {comparison.throughput_images_per_s:.0f} images/s back to back"
    return text + "."


def _ms(value: float) -> str:
    """Milliseconds to a hundredth, or, below one, to a thousandth."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


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
