from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.evaluation.accuracy_results import Published
from riformer_deploy.evaluation.results import Status
from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.model_card import render_model_card
from riformer_deploy.reporting.summary import choices, class_accuracy, lasting_files, mistakes, not_verified


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
    none = dataclasses.replace(evidence, parity=(worse,))
    assert choices(none) == ()
    card = render_model_card(none)
    for batch in (1, 2):
        assert f"- Batch {batch}: nothing is to be shipped: no graph or engine" in card


def test_classes_and_mistakes_count_what_the_first_artifact_said(measured_bundle: Path) -> None:
    evidence = read_evidence(measured_bundle)
    assert evidence.accuracy is not None
    rows = class_accuracy(evidence)
    assert sum(row.right for row in rows) == evidence.accuracy.artifacts[0].top1.right
    assert [row.pictures for row in rows] == [2] * 7
    assert {row.name for row in rows} == {f"class {label}" for label in range(7)}
    wrong, first = mistakes(evidence), evidence.accuracy.artifacts[0].name
    assert len(wrong) == 14 - evidence.accuracy.artifacts[0].top1.right
    scores = [answer.score[first] for answer in wrong]
    assert scores == sorted(scores, reverse=True)
    assert 1 / 7 <= scores[-1] < scores[0] <= 1


def test_answers_of_a_table_without_scores_keep_the_data_set_s_order(
    measured_bundle: Path, tmp_path: Path
) -> None:
    with (measured_bundle / "accuracy.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    kept = [place for place, column in enumerate(rows[0]) if not column.endswith(": score")]
    shutil.copy(measured_bundle / "accuracy.json", tmp_path)
    with (tmp_path / "accuracy.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([row[place] for place in kept] for row in rows)
    evidence = read_evidence(tmp_path / "accuracy.json")
    assert len(evidence.answers) == 14
    wrong = mistakes(evidence)
    assert all(answer.score == {} for answer in wrong)
    places = [evidence.answers.index(answer) for answer in wrong]
    assert places == sorted(places)


def test_what_is_not_verified_is_named(measured_bundle: Path, tiny_bundle: Path) -> None:
    said = not_verified(read_evidence(measured_bundle))
    assert "The accuracy of OpenVINO fp32 was not measured." in said
    assert "Latency was not measured." in not_verified(read_evidence(tiny_bundle))


def test_an_accuracy_far_below_the_published_one_is_told(measured_bundle: Path) -> None:
    evidence = read_evidence(measured_bundle)
    assert evidence.accuracy is not None
    published = Published(variant="tiny", top1_percent=99.0, top5_percent=100.0)
    accuracy = dataclasses.replace(evidence.accuracy, published=published)
    said = not_verified(dataclasses.replace(evidence, accuracy=accuracy))
    assert any("far below the 99.00 % that was published of tiny" in text for text in said)


def test_files_are_listed_without_pages_which_cannot_tell_their_own_hash(measured_bundle: Path) -> None:
    manifest = read_evidence(measured_bundle).manifest
    assert manifest is not None
    assert lasting_files(manifest) == manifest.files
    page = dataclasses.replace(manifest.reference.file, path="report.html")
    later = dataclasses.replace(manifest, results={**manifest.results, "report.html": page})
    assert lasting_files(later) == manifest.files
