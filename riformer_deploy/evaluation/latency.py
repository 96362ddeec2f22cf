"""Times candidates against each other: interleaved rounds, raw samples, honest warnings."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from riformer_deploy.backends.base import Candidate, DeviceTimed, Runtime, graph_of
from riformer_deploy.backends.skipped import Skipped, warn_of_skipped
from riformer_deploy.common.errors import EngineUnfitError, OptionError, RuntimeFailureError
from riformer_deploy.common.progress import Progress, Step, silent
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency_rounds import Rounds
from riformer_deploy.evaluation.latency_summary import instability, summarize
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    InputImages,
    LatencyResult,
    LatencySamples,
    Timing,
)
from riformer_deploy.system.machine import describe_machine, peak_rss_bytes
from riformer_deploy.system.nvml import read_gpu
from riformer_deploy.system.records import GpuState, GpuWatch

_LOG = logging.getLogger(__name__)

_WARM_WINDOW_MS = 10.0
_WARM_UP_CALLS, _WARM_UP_S = 3, 1.0
_LEAST_FOR_ROUNDS = 0.5
"""The share of the limit that is left for rounds however long the candidates take to prepare."""
_MOST_WARM_INFERENCES = 8
"""More would not fit into the launches that a stream takes before it makes the host wait."""


@dataclass
class _Lane:
    """A candidate that is taking part in the rounds of one batch size."""

    candidate: Candidate
    runtime: Runtime
    preparation_ms: float
    samples_ms: dict[Timing, list[float]] = field(default_factory=dict)
    unhidden: Counter[Timing] = field(default_factory=Counter)

    def add(self, timing: Timing, value_ms: float, *, launch_hidden: bool = True) -> None:
        self.samples_ms.setdefault(timing, []).append(value_ms)
        self.unhidden[timing] += not launch_hidden

    @property
    def compared_ms(self) -> list[float]:
        """The series that models are compared by: kernels where the runtime keeps time, else whole calls."""
        return self.samples_ms.get(Timing.COMPUTE) or self.samples_ms.get(Timing.CALL, [])

    def warning(self, timing: Timing) -> str | None:
        """Why a series is to be taken with care, or None."""
        samples_ms = self.samples_ms[timing]
        findings = [text] if (text := instability(samples_ms)) else []
        if count := self.unhidden[timing]:
            findings.append(
                f"the host could not launch fast enough in {count} of {len(samples_ms)} samples, "
                "so their times contain some of its work"
            )
        return "; ".join(findings) or None


def _call_ms(runtime: Runtime, images: Images) -> float:
    start = time.perf_counter()
    runtime.run(images)
    return 1000 * (time.perf_counter() - start)


def _warm_up(runtime: Runtime, images: Images, calls: int | None) -> None:
    """Untimed calls; where their number is left to us, slow ones are fewer."""
    runtime.run(images)
    start = time.monotonic()
    for _ in range((calls or _WARM_UP_CALLS) - 1):
        if calls is None and time.monotonic() - start > _WARM_UP_S:
            break
        runtime.run(images)


def _prepare(candidate: Candidate, images: Images, warmup: int | None) -> _Lane | Skipped:
    start = time.perf_counter()
    runtime = None
    try:
        runtime = candidate.open()
        _warm_up(runtime, images, warmup)
    except (RuntimeFailureError, EngineUnfitError) as err:
        _close(runtime)
        return Skipped(config=candidate.config, reason=err.message)
    except BaseException:
        _close(runtime)
        raise
    preparation_ms = 1000 * (time.perf_counter() - start)
    return _Lane(candidate=candidate, runtime=runtime, preparation_ms=preparation_ms)


def _close(runtime: Runtime | None) -> None:
    """Close what was opened; a device that has failed may fail at this as well, and has been reported."""
    if runtime is not None:
        try:
            runtime.close()
        except RuntimeFailureError as err:
            _LOG.warning("a runtime could not be closed: %s", err.message)


def _time_on_device(lane: _Lane, runtime: DeviceTimed, images: Images, repeats: int) -> None:
    for _ in range(repeats):
        times = runtime.device_times(images)
        lane.add(Timing.COMPUTE, times.compute_ms, launch_hidden=times.launch_hidden)
        lane.add(Timing.TRANSFERS, times.to_device_ms + times.to_host_ms)
        lane.add(Timing.STAGING, times.staging_ms)
    count = math.ceil(_WARM_WINDOW_MS / times.compute_ms)
    warm = runtime.warm_time(images, min(count, _MOST_WARM_INFERENCES))
    lane.add(Timing.COMPUTE_WARM, warm.compute_ms, launch_hidden=warm.launch_hidden)


def _take_turn(lane: _Lane, images: Images, repeats: int) -> str | None:
    """One untimed call and the timed ones; where they fail the lane is closed and the reason given."""
    try:
        lane.runtime.run(images)
        for _ in range(repeats):
            lane.add(Timing.CALL, _call_ms(lane.runtime, images))
        if isinstance(lane.runtime, DeviceTimed):
            _time_on_device(lane, lane.runtime, images, repeats)
    except RuntimeFailureError as err:
        _close(lane.runtime)
        return err.message
    return None


def _measure_batch(
    candidates: Sequence[Candidate],
    images: Images,
    options: BenchOptions,
    progress: Progress,
    under_load: list[GpuState | None],
    seconds: float,
    later_s: float,
) -> tuple[list[LatencySamples], list[Skipped]]:
    """Time every lane of one batch size; the GPU is looked at before the lanes are closed.

    Returns:
        The series, and the candidates that were left out.
    """
    start, batch = time.monotonic(), len(images)
    lanes: list[_Lane] = []
    skipped: list[Skipped] = []
    try:
        for candidate in candidates:
            reason = candidate.batches.refusal(batch)
            if reason is not None:
                skipped.append(Skipped(config=candidate.config, reason=reason))
                continue
            progress(f"preparing {candidate.name}, batch {batch}")
            prepared = _prepare(candidate, images, options.warmup)
            if isinstance(prepared, Skipped):
                skipped.append(prepared)
            else:
                lanes.append(prepared)
        order = random.Random(options.seed)  # noqa: S311  # an order, not a secret
        least_s = _LEAST_FOR_ROUNDS * options.max_seconds / len(options.batches)
        left_s = max(seconds - (time.monotonic() - start), least_s)
        rounds = Rounds(options.rounds, options.repeats, left_s, later_s)
        while lanes and rounds.more([(lane.candidate.role, lane.compared_ms) for lane in lanes]):
            progress(Step(f"batch {batch}", rounds.label, done=rounds.taken, total=rounds.planned))
            rounds.taken += 1
            for lane in order.sample(lanes, len(lanes)):
                failure = _take_turn(lane, images, options.repeats)
                if failure is not None:
                    lanes.remove(lane)
                    reason = f"failed in round {rounds.taken}: {failure}"
                    skipped.append(Skipped(config=lane.candidate.config, reason=reason))
        if any(Timing.COMPUTE in lane.samples_ms for lane in lanes):
            under_load.append(read_gpu()[0])
    finally:
        for lane in lanes:
            _close(lane.runtime)
    measured = [
        LatencySamples(
            config=lane.candidate.config,
            batch=batch,
            timing=timing,
            role=lane.candidate.role,
            samples_ms=tuple(samples),
            preparation_ms=lane.preparation_ms,
            artifact_sha256=lane.candidate.artifact_sha256,
            warning=lane.warning(timing),
            summary=summarize(samples, batch),
            graph=graph_of(lane.runtime),
        )
        for lane in lanes
        for timing, samples in lane.samples_ms.items()
    ]
    return measured, skipped


def measure_latency(
    candidates: Sequence[Candidate],
    images: Images,
    inputs: InputImages,
    options: BenchOptions,
    *,
    skipped: Sequence[Skipped] = (),
    progress: Progress = silent,
) -> LatencyResult:
    """Time every candidate on every batch size: from call to result on the host, and on its device.

    Args:
        candidates: What to time.
        images: (N, 3, H, W) float32, at least as many as the largest batch.
        inputs: Where the images come from.
        options: How to measure.
        skipped: Candidates that were left out beforehand, with the reason.
        progress: Called with each step.

    Raises:
        MissingDependencyError: A candidate's backend is not installed.
        OptionError: There are fewer images than the largest batch.
        RuntimeFailureError: Nothing could be measured.
    """
    if len(images) < max(options.batches):
        raise OptionError(f"Batch {max(options.batches)} was asked for, but there are {len(images)} images.")
    before, problem = read_gpu()
    under_load: list[GpuState | None] = []
    samples: list[LatencySamples] = []
    left_out = list(skipped)
    begin = time.monotonic()
    for place, batch in enumerate(options.batches):
        left_s = options.max_seconds - (time.monotonic() - begin)
        share_s = left_s / (len(options.batches) - place)
        measured, missed = _measure_batch(
            candidates, images[:batch], options, progress, under_load, share_s, left_s - share_s
        )
        samples += measured
        left_out += missed
    if not samples:
        raise RuntimeFailureError(
            "Nothing could be measured.", details=[f"{item.name}: {item.reason}" for item in left_out]
        )
    gpu = None
    if any(item.timing is Timing.COMPUTE for item in samples):
        after, problem_after = read_gpu()
        loads = tuple(state for state in under_load if state is not None)
        gpu = GpuWatch(before=before, after=after, problem=problem or problem_after, under_load=loads)
    if gpu is not None and gpu.warning is not None:
        _LOG.warning("%s", gpu.warning)
    warn_of_skipped(left_out)
    return LatencyResult(
        schema=RESULT_SCHEMA,
        kind="latency",
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        inputs=inputs,
        threads=options.used_threads,
        rounds=min(len(s.samples_ms) for s in samples if s.timing is Timing.CALL) // options.repeats,
        repeats=options.repeats,
        samples=tuple(samples),
        skipped=tuple(left_out),
        process_peak_rss_bytes=peak_rss_bytes(),
        gpu=gpu,
    )
