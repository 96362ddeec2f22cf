"""The GPU suite's targets beside what was measured; what was not measured is said."""

from __future__ import annotations

from collections.abc import Iterable

from _common import target
from _forms import DIGITS
from _suite import Suite

from riformer_deploy.common.enums import Precision, Role, RuntimeKind
from riformer_deploy.common.serialization import JsonValue

# Internals: targets are computed from raw samples.
from riformer_deploy.evaluation.latency_comparison import speed_up
from riformer_deploy.evaluation.results import LatencySamples, ParityResult, Status, Timing

NOT_MEASURED = "not measured"


_HALF = (Precision.FP16, Precision.BF16)


def _kernels(suite: Suite, batch: int) -> list[tuple[LatencySamples, str | None]]:
    """Kernels with a cold L2 cache of the suite's first variant in half precision, of every measurement.

    Beside each the bundle that its artifact is from.
    """
    return [
        (series, timed.bundle_of(series.config))
        for timed in suite.latency
        if timed.variant == suite.latency[0].variant
        for series in timed.result.samples
        if (series.timing, series.batch) == (Timing.COMPUTE, batch) and series.config.precision in _HALF
    ]


def _fastest(series: Iterable[LatencySamples]) -> LatencySamples | None:
    return min(series, key=lambda item: item.summary.median_ms, default=None)


def _speed_up(suite: Suite, batch: int, *, engines: bool) -> JsonValue:
    """Kernels of the strongest baseline over those of our fastest engine, or of our fastest ONNX file."""
    kernels = _kernels(suite, batch)
    baseline = _fastest(series for series, _ in kernels if series.role is Role.BASELINE)
    ours = _fastest(
        series
        for series, bundle in kernels
        if bundle is not None and (series.config.runtime is RuntimeKind.TENSORRT) is engines
    )
    if baseline is None or ours is None:
        return NOT_MEASURED
    found = speed_up(baseline, ours)
    if found is None:
        return f"not reliable: {baseline.warning or ours.warning}"
    return target(found, 1.5, at_most=False)


def _held(parity: ParityResult | None) -> JsonValue:
    if parity is None or not parity.candidates:
        return NOT_MEASURED
    return parity.status is Status.PASSED


def targets_of(suite: Suite, batches: tuple[int, ...]) -> dict[str, JsonValue]:
    """Every target.

    Args:
        suite: What was found.
        batches: The smallest and the largest batch size.
    """
    targets: dict[str, JsonValue] = {}
    for batch in dict.fromkeys(batches):
        title = f"batch {batch}: kernels of the strongest baseline in half precision over those of"
        targets[f"{title} the fastest engine"] = _speed_up(suite, batch, engines=True)
        targets[f"{title} the fastest ONNX file in ONNX Runtime CUDA"] = _speed_up(
            suite, batch, engines=False
        )
    targets["parity of the stand-in's engines of the digits, plain and as a CUDA graph"] = _held(
        suite.standin.get(DIGITS)
    )
    targets["parity of the digits' engines, plain and as a CUDA graph"] = _held(suite.parity.get(DIGITS))
    targets["parity of the digits in ONNX Runtime CUDA"] = _held(
        suite.parity.get(f"{DIGITS}, ONNX Runtime CUDA")
    )
    return targets
