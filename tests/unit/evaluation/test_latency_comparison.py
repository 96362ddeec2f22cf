from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from riformer_deploy.common.enums import Role
from riformer_deploy.evaluation.latency_comparison import compare_latency, strongest_baseline
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    InputImages,
    LatencyResult,
    LatencySamples,
    Timing,
)
from riformer_deploy.system.records import Machine
from tests.candidates import labelled

MACHINE = Machine(cpu="a CPU", cores=2, memory_bytes=None, system="Linux", python="3.11", libraries={})
BASELINE, COMPUTE, WARM = Role.BASELINE, Timing.COMPUTE, Timing.COMPUTE_WARM


def series(
    name: str,
    median_ms: float,
    *,
    role: Role = Role.CANDIDATE,
    timing: Timing = Timing.CALL,
    batch: int = 2,
    warning: str | None = None,
) -> LatencySamples:
    values = (median_ms,) * 6
    return LatencySamples(
        config=labelled(name),
        batch=batch,
        timing=timing,
        role=role,
        samples_ms=values,
        preparation_ms=1.0,
        artifact_sha256="0" * 64,
        warning=warning,
        summary=summarize(np.array(values), batch),
    )


def result(*samples: LatencySamples) -> LatencyResult:
    return LatencyResult(
        schema=RESULT_SCHEMA,
        kind="latency",
        created_utc="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        inputs=InputImages(description="synthetic", image_size_px=(64, 48), batches=(2,), seed=0),
        threads=2,
        rounds=6,
        repeats=1,
        samples=samples,
        skipped=(),
        process_peak_rss_bytes=1,
    )


def test_the_fastest_candidate_is_measured_against_the_strongest_baseline_by_its_kernels() -> None:
    (found,) = compare_latency(
        result(
            series("eager", 9, role=BASELINE, timing=COMPUTE),
            series("compiled", 6, role=BASELINE, timing=COMPUTE),
            series("compiled", 1, role=BASELINE),  # by the call, which is not what is compared
            series("plain engine", 5, timing=COMPUTE),
            series("graph", 4, timing=COMPUTE),
            series("graph", 2, timing=WARM),
            series("onnx", 3),
        )
    )
    assert found.baseline is not None
    assert (found.fastest.name, found.baseline.name, found.timing) == ("graph", "compiled", COMPUTE)
    assert (found.speed_up, found.throughput_images_per_s) == (1.5, 1000.0)


def test_without_a_device_whole_calls_are_compared() -> None:
    (found,) = compare_latency(result(series("torch", 10, role=BASELINE), series("onnx", 4)))
    assert (found.fastest.name, found.timing, found.speed_up) == ("onnx", Timing.CALL, 2.5)
    assert found.throughput_images_per_s is None


def test_candidates_of_the_host_are_compared_by_the_call_with_baselines_on_a_device() -> None:
    torch = series("torch", 10, role=BASELINE)
    (found,) = compare_latency(result(torch, replace(torch, timing=COMPUTE), series("onnx", 4)))
    assert (found.baseline, found.timing) == (torch, Timing.CALL)


def test_each_batch_size_has_a_baseline_of_its_own() -> None:
    found = compare_latency(
        result(
            series("a", 10, role=BASELINE),
            series("b", 20, role=BASELINE),
            series("e", 5),
            series("a", 40, role=BASELINE, batch=8),
            series("b", 30, role=BASELINE, batch=8),
            series("e", 10, batch=8),
        )
    )
    assert [(c.batch, c.baseline.name if c.baseline else None, c.speed_up) for c in found] == [
        (2, "a", 2.0),
        (8, "b", 3.0),
    ]


def test_baselines_alone_have_a_fastest_and_nothing_is_faster_than_itself() -> None:
    (found,) = compare_latency(result(series("a", 10, role=BASELINE), series("b", 5, role=BASELINE)))
    assert (found.fastest.name, found.baseline, found.speed_up) == ("b", found.fastest, None)


def test_a_baseline_that_is_faster_within_the_rounds_is_the_stronger_one() -> None:
    def rounds(name: str, *values: float) -> LatencySamples:
        plain = series(name, 1.0, role=BASELINE)
        return replace(plain, samples_ms=values, summary=summarize(np.array(values), 2))

    eager = rounds("eager", *(1.0,) * 6, *(9.0,) * 6)  # the machine was slow in the second half
    folded = rounds("folded", *(0.8,) * 4, *(8.9,) * 2, *(8.0,) * 6)  # and for this one two rounds before
    assert eager.summary.median_ms < folded.summary.median_ms
    assert strongest_baseline(result(eager, folded), 2, Timing.CALL) == folded


def test_candidates_alone_have_a_fastest_and_no_baseline() -> None:
    samples = result(series("a", 10), series("b", 5))
    (found,) = compare_latency(samples)
    assert (found.fastest.name, found.baseline, found.speed_up) == ("b", None, None)
    assert strongest_baseline(samples, 2, Timing.CALL) is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_figure_that_is_to_be_taken_with_care_gives_no_speed_up(which: int) -> None:
    samples = [series("torch", 10, role=BASELINE), series("onnx", 4)]
    samples[which] = replace(samples[which], warning="it drifts")
    (found,) = compare_latency(result(*samples))
    assert found.speed_up is None
