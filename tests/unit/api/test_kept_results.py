from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle, stored_accuracy
from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.api.kept_results import kept_results
from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.api.run_records import RunRecord
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import NormForm
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.accuracy_results import AccuracyResult, compare_accuracy, share_of
from riformer_deploy.evaluation.results import LatencyResult, ParityResult
from riformer_deploy.evaluation.tolerances import changed_tolerances
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.quantization.search import search
from tests.judges import Figures, task, tuned
from tests.sessions import series, session


@pytest.fixture
def measured(tiny_bundle_copy: Path) -> Bundle:
    """A bundle with latencies of its graph and weights, a table beside them, and a second parity report."""
    bundle = Bundle.open(tiny_bundle_copy)
    onnx, torch = bundle.manifest.onnx[0].file.sha256, bundle.manifest.weights[1].file.sha256
    latency = session(series("onnx", 1, onnx), series("torch", 1, torch))
    store_result(bundle, "latency", latency, {"latency.csv": "a,b\n"})
    parity = load_json(ParityResult, (tiny_bundle_copy / "parity.json").read_text(encoding="utf-8"))
    store_result(bundle, "parity-user", parity)
    return Bundle.open(tiny_bundle_copy)


def _files(bundle: Bundle) -> set[str]:
    manifest = bundle.manifest
    weights = {item.file.sha256 for item in manifest.weights}
    return weights | {item.file.sha256 for item in manifest.onnx}


def test_what_is_about_the_same_files_stays_as_it_is(measured: Bundle, tmp_path: Path) -> None:
    reference = measured.manifest.reference.file.sha256
    kept, dropped = kept_results(measured, _files(measured), reference, tmp_path)
    assert kept == {k: v for k, v in measured.manifest.results.items() if k != "parity"}
    assert dropped == ()


def test_of_a_session_the_series_of_replaced_files_go_and_are_named(measured: Bundle, tmp_path: Path) -> None:
    manifest = measured.manifest
    present = _files(measured) - {manifest.onnx[0].file.sha256}
    kept, dropped = kept_results(measured, present, manifest.reference.file.sha256, tmp_path)
    assert set(kept) == {"latency"}  # the table was of the whole session
    left = load_json(LatencyResult, (tmp_path / "latency.json").read_text(encoding="utf-8"))
    assert [item.name for item in left.samples] == ["torch"]
    assert dropped == (
        "latency.json: onnx: measured of a file that is replaced",
        "latency.csv: it is about files that are replaced",
        "parity-user.json: it is about files that are replaced",
    )


def test_what_a_run_stored_stays_and_pages_of_earlier_figures_go(measured: Bundle, tmp_path: Path) -> None:
    store_result(measured, "run", RunRecord(max_seconds=5.0))
    store_result(
        Bundle.open(measured.directory), "latency", session(series("torch", 1, "0" * 64)), {"page.html": ""}
    )
    bundle = Bundle.open(measured.directory)
    reference = bundle.manifest.reference.file.sha256
    kept, dropped = kept_results(bundle, _files(bundle), reference, tmp_path)
    assert kept["run"] == bundle.manifest.results["run"]
    assert "page.html: it tells what was measured before" in dropped


def test_a_search_stays_while_the_bundle_holds_its_answer(measured: Bundle, tmp_path: Path) -> None:
    answer = measured.manifest.onnx[0].file.sha256
    trace = search(task(max_seconds=1.0), Figures(0))
    store_result(measured, "tune-openvino", tuned(trace, artifact_sha256=answer))
    bundle = Bundle.open(measured.directory)
    reference = bundle.manifest.reference.file.sha256
    kept, dropped = kept_results(bundle, _files(bundle), reference, tmp_path)
    assert kept["tune-openvino"] == bundle.manifest.results["tune-openvino"]
    assert dropped == ()
    kept, dropped = kept_results(bundle, _files(bundle) - {answer}, reference, tmp_path)
    assert "tune-openvino" not in kept
    assert "tune-openvino.json: it is about files that are replaced" in dropped
    built = dataclasses.replace(tuned(trace, artifact_sha256=answer), engine_file="e", engine_sha256="0" * 64)
    store_result(bundle, "tune-engine", built)
    kept, dropped = kept_results(Bundle.open(bundle.directory), _files(bundle), reference, tmp_path)
    assert "tune-engine" not in kept  # another engine of the same graph took its place


@pytest.fixture
def judged(tiny_bundle_copy: Path, tmp_path: Path, tiny_architecture: Architecture) -> Bundle:
    """A bundle with accuracy of its weights, in both forms, and its graph."""
    path, rng = tmp_path / "noise.npz", np.random.Generator(np.random.PCG64(0))
    images = rng.integers(0, 256, (6, 64, 48, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(6) % tiny_architecture.num_classes)
    accuracy_bundle(tiny_bundle_copy, AccuracyOptions(data=path))
    return Bundle.open(tiny_bundle_copy)


def test_of_a_pass_over_pictures_the_artifacts_of_replaced_files_go_and_are_named(
    judged: Bundle, tmp_path: Path
) -> None:
    manifest, before = judged.manifest, stored_accuracy(judged)
    assert before is not None
    reference = manifest.reference.file.sha256
    kept, dropped = kept_results(judged, _files(judged), reference, tmp_path)
    assert {kind: kept[kind] for kind in ("accuracy", "accuracy.csv")} == {
        kind: manifest.results[kind] for kind in ("accuracy", "accuracy.csv")
    }
    present = _files(judged) - {manifest.onnx[0].file.sha256}
    kept, dropped = kept_results(judged, present, reference, tmp_path)
    left = load_json(AccuracyResult, (tmp_path / "accuracy.json").read_text(encoding="utf-8"))
    names = [item.name for item in before.artifacts]
    assert [item.name for item in left.artifacts] == names[:2]
    assert dropped[0] == "accuracy.json: ONNX Runtime fp32: measured of a file that is replaced"
    with (tmp_path / "accuracy.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (judged.directory / "accuracy.csv").open(encoding="utf-8") as file:
        assert rows == [
            {column: value for column, value in row.items() if not column.startswith(names[2])}
            for row in csv.DictReader(file)
        ]
    assert kept["accuracy.csv"].parent_sha256 == kept["accuracy"].sha256
    for record in kept.values():
        place = tmp_path if (tmp_path / record.path).exists() else judged.directory
        assert sha256_of(place / record.path) == record.sha256


@pytest.mark.parametrize("table", ["picture,label\nsplit\rname,1\n", "a,b\nc\n", ""])
def test_a_table_that_cannot_be_read_goes_alone(judged: Bundle, tmp_path: Path, table: str) -> None:
    result = stored_accuracy(judged)
    assert result is not None
    store_result(judged, "accuracy", result, {"accuracy.csv": table})
    bundle = Bundle.open(judged.directory)
    present = _files(bundle) - {bundle.manifest.onnx[0].file.sha256}
    kept, dropped = kept_results(bundle, present, bundle.manifest.reference.file.sha256, tmp_path)
    assert "accuracy" in kept
    readable = table == ""
    assert ("accuracy.csv" in kept) is readable
    assert any("accuracy.csv: it cannot be read" in text for text in dropped) is not readable


def test_a_table_that_was_changed_is_not_looked_at_where_nothing_is_replaced(
    judged: Bundle, tmp_path: Path
) -> None:
    (judged.directory / "accuracy.csv").write_text("changed")
    kept, dropped = kept_results(judged, _files(judged), judged.manifest.reference.file.sha256, tmp_path)
    assert {"accuracy", "accuracy.csv"} <= set(kept)
    assert dropped == ()


@pytest.mark.parametrize("change", ["gate", "processor", "libraries", "dataset", "broken pictures"])
def test_a_pass_stands_for_a_smaller_one_in_the_same_circumstances_alone(judged: Bundle, change: str) -> None:
    whole = stored_accuracy(judged)
    assert whole is not None
    few = whole.of_files(_files(judged) - {judged.manifest.onnx[0].file.sha256})
    assert few is not None
    assert whole.outweighs(few)
    assert not few.outweighs(whole)
    assert not whole.outweighs(whole)  # as much is not more
    machine, dataset = few.machine, few.dataset
    other = {
        "gate": lambda: dataclasses.replace(few, max_drop_points=100.0),
        "processor": lambda: dataclasses.replace(few, machine=dataclasses.replace(machine, cpu="another")),
        "libraries": lambda: dataclasses.replace(few, machine=dataclasses.replace(machine, libraries={})),
        "dataset": lambda: dataclasses.replace(few, dataset=dataclasses.replace(dataset, identity="other")),
        "broken pictures": lambda: dataclasses.replace(
            few,
            artifacts=tuple(
                dataclasses.replace(
                    item,
                    images=item.images + 1,
                    top1=share_of(0, item.images + 1),
                    top5=share_of(0, item.images + 1),
                )
                for item in few.artifacts
            ),
            comparisons=tuple(
                compare_accuracy(
                    item.config,
                    item.baseline,
                    lost=0,
                    gained=0,
                    changed=0,
                    images=item.images + 1,
                    max_drop_points=None,
                )
                for item in few.comparisons
            ),
            dataset=dataclasses.replace(dataset, asked=dataset.asked + 1),
        ),
    }[change]()
    assert not whole.outweighs(other)


def test_a_pass_whose_baseline_is_replaced_goes(judged: Bundle, tmp_path: Path) -> None:
    baseline = judged.manifest.reference.file.sha256
    kept, dropped = kept_results(judged, _files(judged) - {baseline}, baseline, tmp_path)
    assert not {"accuracy", "accuracy.csv"} & set(kept)
    assert "accuracy.json: it is about files that are replaced" in dropped


def test_a_damaged_result_is_dropped_with_the_reason(measured: Bundle, tmp_path: Path) -> None:
    (measured.directory / "parity-user.json").write_text("damaged")
    kept, dropped = kept_results(
        measured, _files(measured), measured.manifest.reference.file.sha256, tmp_path
    )
    assert "parity-user" not in kept
    (said,) = dropped
    assert said.startswith("parity-user.json: ")
    assert "is not the file that the bundle recorded" in said


def test_exporting_the_identical_file_again_keeps_its_results(
    measured: Bundle, tiny_checkpoint: Path
) -> None:
    options = ExportOptions(checkpoint=tiny_checkpoint, output=measured.directory, image_size_px=(64, 48))
    assert export_checkpoint(options).notes == ()
    after = Bundle.open(measured.directory)
    assert after.manifest.results.keys() == measured.manifest.results.keys()
    for kind in ("latency", "latency.csv", "parity-user"):
        assert after.manifest.results[kind] == measured.manifest.results[kind]
        after.path_of(after.manifest.results[kind])


@pytest.mark.slow
def test_exporting_another_file_drops_what_is_about_the_first(
    measured: Bundle, tiny_checkpoint: Path
) -> None:
    options = ExportOptions(checkpoint=tiny_checkpoint, output=measured.directory, image_size_px=(64, 48))
    other = dataclasses.replace(options, lowerings=(LoweringConfig(norm=NormForm.MOMENTS),))
    notes = export_checkpoint(other).notes
    assert "dropped from the bundle: latency.json: onnx: measured of a file that is replaced" in notes
    assert set(Bundle.open(measured.directory).manifest.results) == {"parity", "latency"}
    verify_bundle(measured.directory, changed_tolerances(atol=1e-3))
