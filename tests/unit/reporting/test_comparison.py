from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.errors import BundleError, OptionError
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.accuracy_results import (
    AccuracyResult,
    ArtifactAccuracy,
    DatasetRecord,
    share_of,
)
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    InputImages,
    LatencyResult,
    LatencySamples,
    Status,
)
from riformer_deploy.reporting.comparison import (
    CompareOptions,
    compare_evidence,
)
from riformer_deploy.reporting.comparison_records import ComparisonReport
from riformer_deploy.reporting.evidence import Answer, Evidence, read_evidence
from riformer_deploy.system.records import Machine

ONNX = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=Precision.FP32)
MACHINE = Machine(cpu="a CPU", cores=2, memory_bytes=None, system="Linux", python="3.11", libraries={})


def _latency(median_ms: float, cpu: str = "a CPU") -> LatencyResult:
    values = tuple(median_ms * factor for factor in (0.99, 1.0, 1.01) * 4)
    samples = LatencySamples(
        config=ONNX,
        batch=1,
        samples_ms=values,
        preparation_ms=1.0,
        artifact_sha256="0" * 64,
        warning=None,
        summary=summarize(np.array(values), 1),
    )
    return LatencyResult(
        schema=RESULT_SCHEMA,
        kind="latency",
        created_utc="2026-01-01T00:00:00+00:00",
        machine=dataclasses.replace(MACHINE, cpu=cpu),
        inputs=InputImages(description="synthetic", image_size_px=(64, 48), batches=(1,), seed=0),
        threads=2,
        rounds=12,
        repeats=1,
        samples=(samples,),
        skipped=(),
        process_peak_rss_bytes=1,
    )


def _accuracy(right: list[bool], identity: str = "data") -> Evidence:
    dataset = DatasetRecord(
        location="DIR", layout="folders", identity=identity, total=len(right), asked=len(right), notes=()
    )
    share = share_of(sum(right), len(right))
    result = AccuracyResult(
        schema=RESULT_SCHEMA,
        kind="accuracy",
        created_utc="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        dataset=dataset,
        preprocessing=Preprocessing(resize_short_edge_px=None, crop_px=(64, 48)),
        published=None,
        artifacts=(
            ArtifactAccuracy(
                config=ONNX, artifact_sha256="", images=len(right), not_finite=0, top1=share, top5=share
            ),
        ),
        comparisons=(),
        broken=(),
        max_drop_points=None,
        resumed_from=0,
        status=Status.PASSED,
    )
    answers = tuple(
        Answer(picture=str(n), label=0, predicted={ONNX.name: int(not ok)}, right={ONNX.name: ok}, score={})
        for n, ok in enumerate(right)
    )
    return Evidence(path=Path("accuracy.json"), accuracy=result, answers=answers)


def _timed(latency: LatencyResult) -> Evidence:
    return Evidence(path=Path("latency.json"), latency=latency)


def _slower(before_ms: float, after_ms: float, percent: float) -> ComparisonReport:
    options = CompareOptions(max_slowdown_percent=percent)
    return compare_evidence(_timed(_latency(before_ms)), _timed(_latency(after_ms)), options)


def test_a_slowdown_beyond_the_gate_fails_with_its_figure_and_a_smaller_one_passes() -> None:
    failed = _slower(10.0, 11.0, 5)
    assert failed.status is Status.FAILED
    assert failed.failures == ("ONNX Runtime fp32, call, batch 1: +10.0 % time, 5 % more are allowed",)
    (change,) = failed.latency
    assert change.slowdown.ci95 is not None
    assert 1.07 < change.slowdown.ci95[0] < 1.1 < change.slowdown.ci95[1] < 1.13
    assert _slower(10.0, 11.0, 15).status is Status.PASSED
    assert _slower(10.0, 9.0, 0).status is Status.PASSED


def test_a_slowdown_that_may_be_chance_does_not_fail() -> None:
    report = _slower(10.0, 10.02, 0)
    assert report.latency[0].slowdown.value > 1
    assert report.status is Status.PASSED


def test_latencies_of_different_machines_are_compared_only_where_that_is_asked_for() -> None:
    pair = _timed(_latency(10.0)), _timed(_latency(10.0, cpu="another"))
    refused = compare_evidence(*pair, CompareOptions(max_slowdown_percent=5))
    assert (refused.latency, refused.status) == ((), Status.FAILED)
    assert "CPU a CPU and another (--across-machines compares all the same)" in refused.notes[0]
    assert refused.failures == ("--max-slowdown: there are no latencies to compare",)
    told = compare_evidence(*pair, CompareOptions(max_slowdown_percent=5, across_machines=True))
    assert (len(told.latency), told.status) == (1, Status.PASSED)


def test_accuracy_on_the_same_pictures_is_paired_and_else_is_not() -> None:
    before, after = [True] * 90 + [False] * 10, [True] * 88 + [False] * 2 + [True] + [False] * 9
    (paired,) = compare_evidence(_accuracy(before), _accuracy(after), CompareOptions()).accuracy
    assert (paired.paired, paired.p_value) == (True, 1.0)
    assert paired.drop_points == pytest.approx(1.0)
    other = _accuracy(after, identity="other")
    (unpaired,) = compare_evidence(_accuracy(before), other, CompareOptions()).accuracy
    assert (unpaired.paired, unpaired.p_value) == (False, None)
    assert unpaired.drop_points == pytest.approx(1.0)
    # Newcombe 1998, table II: 56/70 and 48/80, method 10.
    pair = _accuracy([n < 56 for n in range(70)]), _accuracy([n < 48 for n in range(80)])
    (known,) = compare_evidence(*pair, CompareOptions()).accuracy
    assert known.drop_ci95_points == pytest.approx((5.24, 33.39), abs=0.01)
    width = paired.drop_ci95_points[1] - paired.drop_ci95_points[0]
    assert width < unpaired.drop_ci95_points[1] - unpaired.drop_ci95_points[0]


def test_an_artifact_that_one_side_alone_measured_is_named() -> None:
    before, after = _accuracy([True] * 10), _accuracy([True] * 10)
    assert after.accuracy is not None
    (artifact,) = after.accuracy.artifacts
    other = dataclasses.replace(artifact, config=dataclasses.replace(ONNX, precision=Precision.INT8))
    changed = dataclasses.replace(after, accuracy=dataclasses.replace(after.accuracy, artifacts=(other,)))
    notes = compare_evidence(before, changed, CompareOptions()).notes
    assert f"accuracy of {ONNX.name}: measured in A alone" in notes
    assert f"accuracy of {other.name}: measured in B alone" in notes


def test_a_drop_beyond_the_gate_fails_and_a_gate_without_figures_does_too() -> None:
    before, after = _accuracy([True] * 100), _accuracy([True] * 99 + [False])
    report = compare_evidence(before, after, CompareOptions(max_drop_points=0.1))
    assert report.failures == ("ONNX Runtime fp32: top-1 is 1.000 points lower, 0.1 are allowed",)
    assert compare_evidence(before, after, CompareOptions(max_drop_points=1)).status is Status.PASSED
    nothing = compare_evidence(_timed(_latency(1.0)), after, CompareOptions(max_drop_points=1))
    assert nothing.failures == ("--max-drop: there are no accuracies to compare",)


def test_files_and_parity_that_changed_are_named_and_lost_parity_fails(tiny_bundle: Path) -> None:
    before = read_evidence(tiny_bundle)
    assert compare_evidence(before, before, CompareOptions()).files == ()
    manifest = Bundle.open(tiny_bundle).manifest
    changed = dataclasses.replace(manifest.weights[1].file, sha256="f" * 64)
    weights = (manifest.weights[0], dataclasses.replace(manifest.weights[1], file=changed))
    (parity,) = before.parity
    worse = tuple(
        dataclasses.replace(c, status=Status.FAILED) if c.config == ONNX else c for c in parity.candidates
    )
    after = dataclasses.replace(
        before,
        manifest=dataclasses.replace(manifest, weights=weights),
        parity=(dataclasses.replace(parity, candidates=worse, status=Status.FAILED),),
    )
    report = compare_evidence(before, after, CompareOptions())
    assert [(f.path, f.after_sha256) for f in report.files] == [("deploy.pth", "f" * 64)]
    assert report.failures == ("ONNX Runtime fp32: parity held before and fails now",)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_gate_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match="--max-slowdown must be a finite number"):
        CompareOptions(max_slowdown_percent=value)


def test_a_result_alone_is_read_by_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text(dump_json(_latency(3.0)), encoding="utf-8")
    assert read_evidence(path).latency == _latency(3.0)
    path.write_text('{"kind": "poem"}', encoding="utf-8")
    with pytest.raises(BundleError, match="its kind is 'poem'"):
        read_evidence(path)
    path.write_text('{"kind": "latency"}', encoding="utf-8")
    with pytest.raises(BundleError, match="is no valid result"):
        read_evidence(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(BundleError, match="its kind is None"):
        read_evidence(path)
    with pytest.raises(BundleError, match="is neither a bundle nor a result"):
        read_evidence(tmp_path / "gone.json")
