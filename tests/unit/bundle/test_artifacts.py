from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from riformer_deploy.bundle.artifacts import OnnxArtifact, TensorSpec
from tests.manifests import file_record, graph_of


def graph(batch: int | str) -> OnnxArtifact:
    return graph_of(file_record("model.fp32.onnx"), batch)


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


@pytest.mark.parametrize(
    "changes",
    [{"inputs": ()}, {"outputs": ()}, {"inputs": (TensorSpec(name="images", dtype="float32", shape=()),)}],
    ids=["no inputs", "no outputs", "a scalar"],
)
def test_a_graph_without_inputs_or_outputs_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model\.fp32\.onnx is recorded without inputs or outputs"):
        dataclasses.replace(graph("batch"), **changes)
