from __future__ import annotations

import dataclasses
from pathlib import Path

from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.evaluation.results import Status
from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.summary import choices, class_accuracy, lasting_files, mistakes, not_proven


def test_what_is_chosen_is_a_file_of_the_bundle_and_never_one_that_failed_parity(
    measured_bundle: Path,
) -> None:
    evidence = read_evidence(measured_bundle)
    assert [(c.batch, c.file, c.parity) for c in choices(evidence)] == [
        (1, "model.fp32.onnx", Status.PASSED),
        (2, "model.fp32.onnx", Status.PASSED),
    ]
    assert all(choice.ratio is not None and choice.accuracy is not None for choice in choices(evidence))
    (parity,) = evidence.parity
    failed = tuple(
        dataclasses.replace(c, status=Status.FAILED) if c.runtime is RuntimeKind.ONNX_RUNTIME else c
        for c in parity.candidates
    )
    worse = dataclasses.replace(parity, candidates=failed, status=Status.FAILED)
    assert choices(dataclasses.replace(evidence, parity=(worse,))) == ()


def test_classes_and_mistakes_count_what_the_first_artifact_said(measured_bundle: Path) -> None:
    evidence = read_evidence(measured_bundle)
    assert evidence.accuracy is not None
    rows = class_accuracy(evidence)
    assert sum(row.right for row in rows) == evidence.accuracy.artifacts[0].top1.right
    assert [row.pictures for row in rows] == [2] * 7
    assert {row.name for row in rows} == {f"class {label}" for label in range(7)}
    assert len(mistakes(evidence)) == 14 - evidence.accuracy.artifacts[0].top1.right


def test_what_is_not_proven_is_named(measured_bundle: Path, tiny_bundle: Path) -> None:
    said = not_proven(read_evidence(measured_bundle))
    assert "The accuracy of OpenVINO fp32 was not measured." in said
    assert "Latency was not measured." in not_proven(read_evidence(tiny_bundle))


def test_files_are_listed_without_pages_which_cannot_tell_their_own_hash(measured_bundle: Path) -> None:
    manifest = read_evidence(measured_bundle).manifest
    assert manifest is not None
    assert lasting_files(manifest) == manifest.files
    page = dataclasses.replace(manifest.reference.file, path="report.html")
    later = dataclasses.replace(manifest, results={**manifest.results, "report.html": page})
    assert lasting_files(later) == manifest.files
