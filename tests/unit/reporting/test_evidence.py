"""What is stored counts for the very files that it is about, where its verdicts follow from its figures."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision, Role, RuntimeKind
from riformer_deploy.common.errors import BundleError
from riformer_deploy.evaluation.latency_sessions import store_session
from riformer_deploy.evaluation.results import LatencySamples
from riformer_deploy.reporting.comparison import CompareOptions, compare_evidence
from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.html import answer_of
from riformer_deploy.reporting.summary import choices, not_verified
from tests.manifests import restate
from tests.sessions import series, session

Report = dict[str, Any]


def _changed(bundle: Path, change: Callable[[Report], object]) -> None:
    report = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))
    change(report)
    restate(bundle, "parity.json", json.dumps(report).encode())


def test_a_verdict_that_does_not_follow_from_its_figures_is_refused(tiny_bundle_copy: Path) -> None:
    def worse(report: Report) -> None:
        for candidate in report["candidates"]:
            for output in candidate["outputs"]:
                output["deviation"].update(max_abs=9.0, relative_l2=0.9, sqnr_db=1.0)

    _changed(tiny_bundle_copy, worse)
    for path in (tiny_bundle_copy, tiny_bundle_copy / "parity.json"):
        with pytest.raises(BundleError, match="contradicts itself"):
            read_evidence(path)


def test_verdicts_on_other_files_and_other_weights_do_not_count(tiny_bundle_copy: Path) -> None:
    own = read_evidence(tiny_bundle_copy)
    assert own.parity_gaps == ()

    def other_graph(report: Report) -> None:
        for candidate in report["candidates"]:
            if candidate["file"] == "model.fp32.onnx":
                candidate["artifact_sha256"] = "0" * 64

    _changed(tiny_bundle_copy, other_graph)
    found = read_evidence(tiny_bundle_copy)
    assert (
        {c.name for c in found.candidates}
        == {c.name for c in own.candidates if c.file != "model.fp32.onnx"}
        != {c.name for c in own.candidates}
    )
    assert "parity.json: it holds no verdict on this model.fp32.onnx." in not_verified(found)
    _changed(tiny_bundle_copy, lambda report: report.update(reference_sha256="0" * 64))
    found = read_evidence(tiny_bundle_copy)
    assert found.parity == ()
    said = not_verified(found)
    assert "Not counted: parity.json: it compares with other weights than the bundle's reference." in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "neither a bundle nor a result: not JSON"),
        (b"\xff\xfe", "neither a bundle nor a result"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'{"kind": "parity", "kind": "latency"}', "kind: given twice"),
        (b"[]", "its kind is None"),
        (b'{"kind": {}}', "its kind is {}"),
        (b'{"kind": "parity"}', "no valid result"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "parity.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"parity\.json .*{why}"):
        read_evidence(tmp_path / "parity.json")


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zero.json", "absent.json"):
        with pytest.raises(BundleError, match=f"{name} is neither a bundle nor a result"):
            read_evidence(tmp_path / name)


@pytest.fixture
def bundle(measured_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured_bundle, tmp_path / "measured"))


def _graph(bundle: Path) -> str:
    return Bundle.open(bundle).manifest.onnx[0].file.sha256


def _onnx(bundle: Path, batch: int = 1) -> LatencySamples:
    config = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=Precision.FP32)
    return dataclasses.replace(series("onnx", batch, _graph(bundle)), config=config)


def test_all_sessions_of_the_machine_are_read_and_a_baseline_of_another_session_is_said_to_be_one(
    tiny_bundle_copy: Path,
) -> None:
    weights = Bundle.open(tiny_bundle_copy).manifest.reference.file.sha256
    baseline = dataclasses.replace(series("torch", 1, weights), role=Role.BASELINE)
    first = session(baseline, _onnx(tiny_bundle_copy), _onnx(tiny_bundle_copy, 8))
    second = session(_onnx(tiny_bundle_copy), created="2026-01-02T00:00:00+00:00")
    for item in (first, second):
        store_session(Bundle.open(tiny_bundle_copy), item)
    evidence = read_evidence(tiny_bundle_copy)
    assert evidence.latency is not None
    assert [(s.name, s.batch) for s in evidence.latency.samples] == [
        ("ONNX Runtime fp32", 1),
        ("torch", 1),
        ("ONNX Runtime fp32", 8),
    ]
    one, eight = choices(evidence)
    assert (one.same_rounds, one.baseline) == (False, baseline)
    assert "1.00 times as fast as torch, which was measured at another time" in answer_of(one)
    assert "; which of both is faster is not known" in answer_of(one)
    assert (eight.baseline, eight.ratio) == (None, None)


def test_latencies_of_a_replaced_file_are_not_those_of_its_namesake(tiny_bundle_copy: Path) -> None:
    old = dataclasses.replace(_onnx(tiny_bundle_copy), artifact_sha256="0" * 64)
    store_session(Bundle.open(tiny_bundle_copy), session(old))
    evidence = read_evidence(tiny_bundle_copy)
    assert (evidence.latency, choices(evidence)) == (None, ())
    said = not_verified(evidence)
    assert "Latency was not measured." in said
    compared = compare_evidence(evidence, evidence, CompareOptions())
    assert (
        "not counted in B: latency.json: ONNX Runtime fp32: measured of a file that is replaced"
        in compared.notes
    )
    assert "Not counted: latency.json: ONNX Runtime fp32: measured of a file that is replaced." in said


def test_accuracy_and_parity_of_a_replaced_file_do_not_count(bundle: Path) -> None:
    before = read_evidence(bundle)
    assert before.accuracy is not None
    assert before.ignored == ()
    graph = _graph(bundle)
    artifacts = tuple(
        dataclasses.replace(item, artifact_sha256="0" * 64) if item.artifact_sha256 == graph else item
        for item in before.accuracy.artifacts
    )
    store_result(Bundle.open(bundle), "accuracy", dataclasses.replace(before.accuracy, artifacts=artifacts))
    (parity,) = before.parity
    candidates = tuple(
        dataclasses.replace(item, artifact_sha256="0" * 64) if item.file == "model.fp32.onnx" else item
        for item in parity.candidates
    )
    store_result(Bundle.open(bundle), "parity", dataclasses.replace(parity, candidates=candidates))
    after = read_evidence(bundle)
    assert after.accuracy is not None
    assert len(after.accuracy.artifacts) == len(artifacts) - 1
    assert not any(candidate.file == "model.fp32.onnx" for candidate in after.candidates)
    assert all((c.parity, c.accuracy) == (None, None) for c in choices(after))
    assert len(after.ignored) == 2


def test_without_its_baseline_an_accuracy_counts_for_nothing(bundle: Path) -> None:
    result = read_evidence(bundle).accuracy
    assert result is not None
    first = dataclasses.replace(result.artifacts[0], artifact_sha256="0" * 64)
    gone = dataclasses.replace(result, artifacts=(first, *result.artifacts[1:]))
    store_result(Bundle.open(bundle), "accuracy", gone)
    after = read_evidence(bundle)
    assert (after.accuracy, after.answers) == (None, ())
    assert len(after.ignored) == 1
