from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from riformer_deploy.bundle.artifacts import WeightsArtifact
from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.model.architecture import Form
from tests.manifests import engine_of, file_record, manifest_of, source_of


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


@pytest.mark.parametrize("names", [(), ("cat",), ("cat", "dog", "cow")])
def test_class_names_of_another_count_than_the_classes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"{len(names)} class names for 2 classes"):
        dataclasses.replace(make_manifest().model, class_names=names)


def test_engines_are_listed_after_their_graphs_and_come_back_equal() -> None:
    layers = file_record("model.fp32.tensorrt.layers.json")
    engines = (
        dataclasses.replace(engine_of(), layers=layers),
        engine_of(backend=TensorRTFlavor.TENSORRT_RTX),
    )
    manifest = dataclasses.replace(make_manifest(), engines=engines)
    assert [record.path for record in manifest.files][2:-1] == [
        "model.fp32.onnx",
        "model.fp32.tensorrt.engine",
        "model.fp32.tensorrt.log",
        "model.fp32.tensorrt.layers.json",
        "model.fp32.tensorrt-rtx.engine",
        "model.fp32.tensorrt-rtx.log",
    ]
    assert load_json(Manifest, dump_json(manifest)) == manifest


def test_an_engine_of_a_graph_that_the_bundle_does_not_hold_is_refused_by_name() -> None:
    orphan = engine_of(onnx_sha256="f" * 64)
    with pytest.raises(ValueError, match=r"does not hold: model\.fp32\.tensorrt\.engine"):
        dataclasses.replace(make_manifest(), engines=(orphan,))


def test_two_engines_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"more than once: model\.fp32\.tensorrt\.engine"):
        dataclasses.replace(make_manifest(), engines=(engine_of(b"one"), engine_of(b"two")))


def test_a_manifest_from_before_there_were_engines_is_read() -> None:
    data = json.loads(dump_json(make_manifest()))
    del data["engines"]
    assert load_json(Manifest, json.dumps(data)) == make_manifest()
