"""Bundles and pictures whose names are not UTF-8."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.serialization import load_json
from riformer_deploy.data.unusable_image import UnusableImage

NAME = b"caf\xe9 \xc3\xa9"


def test_a_result_with_names_that_are_not_utf_8_is_stored_and_comes_back(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / os.fsdecode(NAME)))
    name = os.fsdecode(NAME)
    result = UnusableImage(image=name, reason="broken")
    store_result(bundle, "accuracy", result, {"accuracy.csv": f"{name},1\n"})
    results = Bundle.open(bundle.directory).manifest.results
    found = load_json(UnusableImage, bundle.path_of(results["accuracy"]).read_text(encoding="utf-8"))
    assert found == result
    assert bundle.path_of(results["accuracy.csv"]).read_bytes() == NAME + b",1\n"


def test_graphs_of_a_bundle_whose_name_is_not_utf_8_run(tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / os.fsdecode(NAME)))
    path = bundle.graph_path(bundle.manifest.onnx[0])
    images = np.zeros((1, 3, *bundle.manifest.model.preprocessing.crop_px), np.float32)
    for kind in (OnnxRuntime, OpenVinoRuntime):
        runtime = kind(path)
        assert runtime.run(images)["logits"].shape == (1, 7)
        runtime.close()
