from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.evaluation.latency_summary import LatencySummary, summarize
from riformer_deploy.evaluation.metric_records import Decisions, Deviation
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    CandidateParity,
    InputImages,
    LatencyResult,
    LatencySamples,
    OutputParity,
    ParityResult,
    StageParity,
    Status,
    files_status,
)
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.system.records import Machine
from tests.candidates import labelled

MACHINE = Machine(cpu="A", cores=2, memory_bytes=None, system="Linux", python="3.11", libraries={"a": "1"})
INPUTS = InputImages(description="noise", image_size_px=(64, 96), batches=(2, 1), seed=None)
GOOD = Deviation(
    finite=True, max_abs=0.1, max_relative=1 / 3, relative_l2=1e-7, sqnr_db=140.0, cosine=1.0,
    elementwise_used=0.25,
)  # fmt: skip
NO_FIGURES = Deviation(
    finite=False, max_abs=None, max_relative=None, relative_l2=None, sqnr_db=None, cosine=None,
    elementwise_used=None,
)  # fmt: skip


def samples(*values: float, batch: int = 2) -> LatencySamples:
    return LatencySamples(
        config=labelled("x"),
        batch=batch,
        samples_ms=tuple(map(float, values)),
        preparation_ms=1.5,
        artifact_sha256="a" * 64,
        warning=None,
        summary=summarize(np.array(values), batch),
    )


def candidate(status: Status, runtime: RuntimeKind = RuntimeKind.ONNX_RUNTIME) -> CandidateParity:
    distance = GOOD if status is Status.PASSED else NO_FIGURES
    flips = 0 if status is Status.PASSED else 1
    choice = Decisions(images=3, top1_agreement=1 - flips / 3, flips=flips, decided_flips=flips)
    return CandidateParity(
        config=labelled("onnxruntime", runtime),
        artifact_sha256="b" * 64,
        tolerance=TOLERANCES[Precision.FP32],
        outputs=(
            OutputParity(
                name="logits", deviation=distance, decisions=choice, tolerance_used=0.5, status=status
            ),
        ),
        stages=(StageParity(stage=1, tensor="backbone.network.0.1", deviation=distance, status=status),),
        first_bad_block=None if status is Status.PASSED else "backbone.network.0.0",
        status=status,
    )


def parity(status: Status) -> ParityResult:
    return ParityResult(
        schema=RESULT_SCHEMA,
        kind="parity",
        created_utc="2025-01-02T03:04:05+00:00",
        machine=MACHINE,
        reference="training form, float64",
        reference_sha256="c" * 64,
        inputs=INPUTS,
        candidates=(candidate(Status.PASSED), candidate(status)),
        skipped=(Skipped(config=labelled("engine"), reason="no GPU"),),
        status=status,
    )


LATENCY = LatencyResult(
    schema=RESULT_SCHEMA,
    kind="latency",
    created_utc="2025-01-02T03:04:05+00:00",
    machine=MACHINE,
    inputs=INPUTS,
    threads=2,
    rounds=5,
    repeats=3,
    samples=(samples(*(0.1 * i for i in range(1, 16))), samples(*range(1, 7), batch=8)),
    skipped=(),
    process_peak_rss_bytes=2**40,
)


def changed(record: object, **changes: Any) -> str:
    return json.dumps(json.loads(dump_json(record)) | changes)


def test_statistics_of_a_case_worked_by_hand() -> None:
    # 1..101 shuffled: the k-th percentile of 101 values is the value k + 1
    values = np.random.default_rng(0).permutation(np.arange(1.0, 102.0))
    # ranks 101 / 2 -+ 0.98 sqrt(101): 40.65 down to 40 and 60.35 up to 61, counted from 0
    assert summarize(values, 4) == LatencySummary(
        median_ms=51.0,
        ci95_ms=(41.0, 62.0),
        p90_ms=91.0,
        p95_ms=96.0,
        p99_ms=100.0,
        min_ms=1.0,
        images_per_s=4000 / 51,
    )


def test_percentiles_between_samples_are_interpolated() -> None:
    found = summarize(np.array([4.0, 1.0, 3.0, 2.0]), 1)
    assert (found.median_ms, found.min_ms, found.images_per_s) == (2.5, 1.0, 400.0)
    assert [found.p90_ms, found.p95_ms] == pytest.approx([3.7, 3.85])


def test_the_samples_keep_their_order() -> None:
    values = np.array([3.0, 1.0, 2.0])
    summarize(values, 1)
    assert values.tolist() == [3, 1, 2]


def exact_coverage(count: int) -> float:
    """That the interval holds the median of any continuous distribution: how many samples lie below it
    is binomial."""
    interval = summarize(np.arange(1.0, count + 1), 1).ci95_ms
    assert interval is not None
    low, high = interval
    holding = sum(math.comb(count, below) for below in range(int(low), int(high)))
    return float(holding / 2**count)


@pytest.mark.parametrize("counts", [range(6, 400), (1000, 1001)], ids=["6-399", "1000"])
def test_the_confidence_interval_holds_the_median_95_times_in_100(counts: Iterable[int]) -> None:
    # 0.945 rounds to 95 %; beyond 98.9 % the next rank inwards would still hold 95 %
    coverage = {count: exact_coverage(count) for count in counts}
    assert {count: value for count, value in coverage.items() if not 0.945 <= value <= 0.989} == {}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_samples_too_few_for_such_an_interval_have_none(count: int) -> None:
    # even from the smallest to the largest it holds the median 1 - 2 / 2**5 = 93.75 times in 100
    assert summarize(np.arange(1.0, count + 1), 1).ci95_ms is None


@pytest.mark.parametrize("count", [15, 30, 200])
def test_the_confidence_interval_covers_in_a_simulation(count: int) -> None:
    rng = np.random.default_rng(count)
    trials = 1500
    intervals = np.array([summarize(rng.lognormal(0, 1, count), 1).ci95_ms for _ in range(trials)])
    covered = np.mean((intervals[:, 0] <= 1) & (intervals[:, 1] >= 1))  # a lognormal's median is 1
    assert covered == pytest.approx(exact_coverage(count), abs=3 * math.sqrt(0.05 * 0.95 / trials))


@pytest.mark.parametrize(
    "change",
    [{"median_ms": 1.0}, {"ci95_ms": (1.0, 2.0)}, {"p99_ms": 99.0}, {"images_per_s": 1e6}, {"min_ms": 0.5}],
)
def test_a_summary_that_does_not_follow_is_refused(change: dict[str, Any]) -> None:
    honest = samples(*range(1, 8))
    false = dataclasses.replace(honest.summary, **change)
    assert false != honest.summary
    with pytest.raises(ValueError, match="does not follow from its samples"):
        dataclasses.replace(honest, summary=false)


@pytest.mark.parametrize("change", [{"samples_ms": [1, 2, 3, 4, 5, 6, 8]}, {"batch": 3}])
def test_samples_changed_in_the_file_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="does not follow from its samples"):
        load_json(LatencySamples, changed(samples(*range(1, 8)), **change))


@pytest.mark.parametrize("values", [[], [0, 0, 0]])
def test_samples_that_are_no_times_are_a_record_error(values: list[float]) -> None:
    with pytest.raises(RecordError):
        load_json(LatencySamples, changed(samples(1, 2, 3), samples_ms=values))


@pytest.mark.parametrize("status", Status)
def test_a_parity_result_comes_back_equal(status: Status) -> None:
    assert load_json(ParityResult, dump_json(parity(status))) == parity(status)


def test_a_latency_result_comes_back_equal_to_the_last_digit() -> None:
    again = load_json(LatencyResult, dump_json(LATENCY))
    assert again == LATENCY
    assert repr(again) == repr(LATENCY)


@pytest.mark.parametrize("change", [{"schema": RESULT_SCHEMA + 1}, {"kind": "accuracy"}])
@pytest.mark.parametrize("record", [LATENCY, parity(Status.PASSED)], ids=["latency", "parity"])
def test_another_schema_or_kind_is_refused(record: object, change: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        load_json(type(record), changed(record, **change))


@pytest.mark.parametrize("change", [{"status": "passed"}, {"status": "passed", "candidates": []}])
def test_a_verdict_that_does_not_follow_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        load_json(ParityResult, changed(parity(Status.FAILED), **change))


def test_a_runtime_that_judges_no_file_does_not_decide_the_status() -> None:
    good, bad = candidate(Status.PASSED), candidate(Status.FAILED, RuntimeKind.OPENVINO)
    result = dataclasses.replace(parity(Status.PASSED), candidates=(good, bad))
    assert (result.status, result.failed) == (Status.PASSED, (bad,))
    assert load_json(ParityResult, dump_json(result)) == result
    for kind in (RuntimeKind.ONNX_RUNTIME, RuntimeKind.PYTORCH, RuntimeKind.TENSORRT):
        with pytest.raises(ValueError, match="does not follow"):
            dataclasses.replace(result, candidates=(good, candidate(Status.FAILED, kind)))


def test_openvino_alone_proves_no_file() -> None:
    alone = candidate(Status.PASSED, RuntimeKind.OPENVINO)
    assert files_status([alone]) is files_status([]) is Status.FAILED
