from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from riformer_deploy.architecture import Form
from riformer_deploy.artifacts import (
    OnnxArtifact,
    TensorSpec,
    WeightsArtifact,
)
from riformer_deploy.manifests import SCHEMA_VERSION, Manifest, WeightSet
from riformer_deploy.records import RecordError, dump_json, load_json
from tests.manifests import file_record, graph_of, manifest_of, source_of


def graph(batch: int | str) -> OnnxArtifact:
    return graph_of(file_record("model.fp32.onnx"), batch)


def make_manifest() -> Manifest:
    plain = manifest_of(*map(file_record, ("training.pth", "model.fp32.onnx", "parity.json")))
    return dataclasses.replace(
        plain,
        model=dataclasses.replace(plain.model, class_names=("cat", "dög")),
        source=source_of(weights=WeightSet.AVERAGED),
        weights=(*plain.weights, WeightsArtifact(file=file_record("deploy.pth"), form=Form.DEPLOY)),
        results={"parity": file_record("parity.json")},
        libraries={"torch": "2.9.0"},
    )


@pytest.mark.parametrize("path", ["model.onnx", "a..b", "model fp32.onnx", "modèle.pth"])
def test_a_plain_name_is_a_path(path: str) -> None:
    assert file_record(path).path == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc/passwd", "../up", "a/b", "a/", "./a", "a\\b", "\\\\host\\share", ".commit", "a\0b"],
)
def test_anything_but_a_plain_name_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not the plain name of a file"):
        file_record(path)


def test_the_manifest_cannot_be_one_of_its_own_files() -> None:
    with pytest.raises(ValueError, match=r"bundle\.json"):
        file_record("bundle.json")


@pytest.mark.parametrize(("batch", "expected"), [("batch", None), (1, 1), (8, 8)])
def test_batch_is_the_fixed_size_or_none(batch: int | str, expected: int | None) -> None:
    assert graph(batch).batch == expected


def test_a_manifest_comes_back_equal() -> None:
    assert load_json(Manifest, dump_json(make_manifest())) == make_manifest()


def test_a_manifest_lists_every_file() -> None:
    assert [record.path for record in make_manifest().files] == [
        "training.pth",
        "deploy.pth",
        "model.fp32.onnx",
        "parity.json",
    ]


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_another_schema_version_is_refused_and_named(version: int) -> None:
    with pytest.raises(ValueError, match=f"schema version {version}; this toolkit reads"):
        dataclasses.replace(make_manifest(), schema_version=version)
    data = json.loads(dump_json(make_manifest())) | {"schema_version": version}
    with pytest.raises(RecordError, match=f"schema version {version}"):
        load_json(Manifest, json.dumps(data))


def test_two_different_files_of_one_name_are_refused() -> None:
    other = dataclasses.replace(file_record("deploy.pth"), sha256="e" * 64)
    with pytest.raises(ValueError, match=r"deploy\.pth"):
        dataclasses.replace(make_manifest(), results={"parity": other})


def test_a_path_out_of_the_bundle_is_refused_when_read_with_its_place() -> None:
    data = json.loads(dump_json(make_manifest()))
    data["weights"][0]["file"]["path"] = "../../etc/passwd"
    data["results"]["parity"]["path"] = "/etc/passwd"
    with pytest.raises(RecordError) as caught:
        load_json(Manifest, json.dumps(data))
    places = [problem.partition(":")[0] for problem in caught.value.problems]
    assert places == ["weights[0].file", "results.parity"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": ()}, "holds weights and at least one ONNX model"),
        ({"onnx": ()}, "holds weights and at least one ONNX model"),
        ({"weights": make_manifest().weights[::-1]}, "must be in training form"),
    ],
    ids=["no weights", "no onnx", "another form first"],
)
def test_a_manifest_that_describes_no_bundle_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(make_manifest(), **changes)
    data = json.loads(dump_json(make_manifest()))
    (name,) = changes
    data[name] = data[name][::-1] if changes[name] else []
    with pytest.raises(RecordError, match=said):
        load_json(Manifest, json.dumps(data))


@pytest.mark.parametrize(
    "changes",
    [{"inputs": ()}, {"outputs": ()}, {"inputs": (TensorSpec(name="images", dtype="float32", shape=()),)}],
    ids=["no inputs", "no outputs", "a scalar"],
)
def test_a_graph_without_inputs_or_outputs_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model\.fp32\.onnx is recorded without inputs or outputs"):
        dataclasses.replace(graph("batch"), **changes)


@pytest.mark.parametrize("names", [(), ("cat",), ("cat", "dog", "cow")])
def test_class_names_of_another_count_than_the_classes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"{len(names)} class names for 2 classes"):
        dataclasses.replace(make_manifest().model, class_names=names)
