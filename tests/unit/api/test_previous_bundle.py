from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.api.previous_bundle import PreviousBundle, read_previous_bundle, refuse_losses
from riformer_deploy.bundle.artifacts import MANIFEST, FileRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.enums import Precision, WeightSet
from riformer_deploy.common.errors import BundleConflictError
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.model.architecture import Form
from tests.manifests import engine_of, file_record, graph_of, manifest_of, source_of

REFERENCE = "f" * 64


def _graph(precision: Precision, sha256: str, batch: int | str = "batch") -> OnnxArtifact:
    file = dataclasses.replace(file_record(f"model.{precision}.onnx"), sha256=sha256)
    return dataclasses.replace(graph_of(file, batch), lowering=LoweringConfig(precision=precision))


def _result(path: str, parent: str = REFERENCE) -> FileRecord:
    return dataclasses.replace(file_record(path), parent_sha256=parent)


FP32, FP16 = _graph(Precision.FP32, "a" * 64), _graph(Precision.FP16, "9" * 64)
ENGINE = engine_of()  # of FP32, by its sha256
PARITY = ENGINE.parity_kind
RESULTS = {
    "parity": _result("parity.json"),
    PARITY: _result("engine.parity.json"),
    "accuracy": _result("accuracy.json"),  # which is not there to be read
}
WEIGHTS = (
    WeightsArtifact(file=dataclasses.replace(file_record("w.pth"), sha256=REFERENCE), form=Form.TRAINING),
)


@pytest.fixture
def before() -> Manifest:
    """Graphs of FP32 and FP16, an engine of FP32, samples, and three results."""
    return dataclasses.replace(
        manifest_of(),
        onnx=(FP32, FP16),
        engines=(ENGINE,),
        samples=file_record("samples.npy"),
        results=RESULTS,
    )


def _read(directory: Path, before: Manifest, *made: Precision, **now: Any) -> PreviousBundle:
    (directory / MANIFEST).write_text(dump_json(before), encoding="utf-8")
    asked = {"model": before.model, "source": before.source, "batch": None, **now}
    return read_previous_bundle(directory, made=made, **asked)


@pytest.mark.parametrize("content", [None, "{}"], ids=["no bundle", "a damaged one"])
def test_what_is_no_bundle_leaves_nothing(tmp_path: Path, before: Manifest, content: str | None) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    found = read_previous_bundle(tmp_path, before.model, before.source, (), None)
    assert found == PreviousBundle()
    refuse_losses(tmp_path, found)


def test_a_precision_that_is_not_made_anew_stays_with_its_engine_and_their_parity(
    tmp_path: Path, before: Manifest
) -> None:
    found = _read(tmp_path, before, Precision.FP16)
    assert (found.onnx, found.lost, found.samples) == ((FP32,), (), before.samples)
    refuse_losses(tmp_path, found)
    new = _graph(Precision.FP16, "8" * 64)
    kept = found.kept_beside([new], WEIGHTS, tmp_path)
    assert kept.onnx == (FP32, new)
    assert kept.engines == (ENGINE,)
    assert kept.results == {PARITY: RESULTS[PARITY]}
    (dropped,) = kept.dropped
    assert dropped.startswith("accuracy.json: ")
    assert "accuracy.json cannot be read" in dropped


def test_an_engine_stays_only_beside_the_graph_that_it_was_built_from(
    tmp_path: Path, before: Manifest
) -> None:
    found = _read(tmp_path, before, Precision.FP32)
    assert found.kept_beside([FP32], WEIGHTS, tmp_path).engines == (ENGINE,)  # the same bytes again
    kept = found.kept_beside([_graph(Precision.FP32, "8" * 64)], WEIGHTS, tmp_path)
    assert (kept.engines, kept.results) == ((), {})
    assert kept.dropped[:2] == (
        f"{ENGINE.file.path}: it was built from a model that is replaced",
        "engine.parity.json: it is about files that are replaced",
    )


def test_parity_against_other_reference_weights_is_dropped(tmp_path: Path, before: Manifest) -> None:
    other = dataclasses.replace(WEIGHTS[0], file=file_record("w.pth"))
    kept = _read(tmp_path, before, Precision.FP16).kept_beside([FP16], (other,), tmp_path)
    assert (kept.engines, kept.results) == ((ENGINE,), {})
    assert "engine.parity.json: it is about files that are replaced" in kept.dropped


@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        ({}, {"source": source_of("0" * 64)}, "it was made of other weights"),
        ({}, {"source": source_of(weights=WeightSet.RAW)}, "it was made of other weights"),
        ({"tool_version": "0.0.9"}, {}, "it was made by version 0.0.9 of this toolkit"),
    ],
    ids=["checkpoint", "weights", "version"],
)
def test_graphs_of_another_origin_are_lost_with_the_samples(
    tmp_path: Path, before: Manifest, then: dict[str, Any], now: dict[str, Any], reason: str
) -> None:
    found = _read(tmp_path, dataclasses.replace(before, **then), Precision.FP16, **now)
    assert (found.onnx, found.samples) == ((), None)
    assert found.lost == (f"model.fp32.onnx: {reason}",)
    with pytest.raises(BundleConflictError, match="they would be lost") as caught:
        refuse_losses(tmp_path, found)
    assert caught.value.details == found.lost


def test_graphs_of_images_that_are_prepared_differently_are_lost(tmp_path: Path, before: Manifest) -> None:
    preprocessing = dataclasses.replace(before.model.preprocessing, crop_px=(32, 32))
    model = dataclasses.replace(before.model, preprocessing=preprocessing)
    found = _read(tmp_path, before, Precision.BF16, model=model)
    why = "it takes images that are prepared differently"
    assert found.lost == (f"model.fp32.onnx: {why}", f"model.fp16.onnx: {why}")


def test_a_graph_of_another_batch_is_lost_and_the_samples_stay(tmp_path: Path, before: Manifest) -> None:
    fixed = dataclasses.replace(before, onnx=(FP32, _graph(Precision.FP16, "9" * 64, batch=2)))
    found = _read(tmp_path, fixed, Precision.BF16)
    assert (found.onnx, found.samples) == ((FP32,), before.samples)
    assert found.lost == ("model.fp16.onnx: its batch is 2, that of the new models dynamic",)
    found = _read(tmp_path, fixed, Precision.BF16, batch=2)
    assert found.lost == ("model.fp32.onnx: its batch is dynamic, that of the new models 2",)


def test_accuracy_of_other_answers_goes_with_the_reason_and_the_rest_stays(
    tmp_path: Path, before: Manifest
) -> None:
    named = dataclasses.replace(before.model, class_names=("cat", "dog"))
    found = _read(tmp_path, before, Precision.FP16, model=named)
    kept = found.kept_beside([FP16], WEIGHTS, tmp_path)
    assert (kept.onnx, kept.engines, kept.results) == ((FP32, FP16), (ENGINE,), {PARITY: RESULTS[PARITY]})
    assert kept.dropped == ("accuracy.json: its classes had other names",)
