"""A graph that gives feature maps: from a checkpoint with a norm for each, to what runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from riformer_deploy.api import parity_reference
from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.api.features import FeatureOptions, extract_features
from riformer_deploy.api.fuse import fuse_checkpoint
from riformer_deploy.api.inspect import CheckpointInspection, inspect_file
from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.api.predict import predict_images
from riformer_deploy.backends.base import CandidateSet
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import Group, OutputForm
from riformer_deploy.common.errors import BundleError, MissingDependencyError, OptionError
from riformer_deploy.data.image_files import PictureFiles
from riformer_deploy.evaluation.reference_outputs import StoredReference
from riformer_deploy.evaluation.results import Status
from riformer_deploy.model.architecture import POSITIONS, Architecture, Form
from riformer_deploy.model.network import model_from_state
from tests.sharing import made_once

pytestmark = pytest.mark.usefixtures("without_openvino")

INDICES = (0, 2, 6)
NAMES = ("stage1", "stage2", "stage4")
MAPS = LoweringConfig(output_form=OutputForm.MAPS, out_indices=INDICES)


@pytest.fixture(scope="module")
def state(tiny_architecture: Architecture, filled: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tiny model with norms of the first two stages' maps, too."""
    return filled(tiny_architecture, out_indices=INDICES)


@pytest.fixture(scope="module")
def checkpoint(shared: Path, state: dict[str, Tensor]) -> Path:
    """Its file."""
    return made_once(shared / "maps.pth", lambda path: torch.save({"state_dict": state}, path))


@pytest.fixture(scope="module")
def bundle(shared: Path, checkpoint: Path) -> Path:
    """Its bundle at 64x48 px, whose one graph gives three maps; read only."""

    def make(path: Path) -> None:
        report = export_checkpoint(
            ExportOptions(checkpoint=checkpoint, output=path, image_size_px=(64, 48), lowerings=(MAPS,))
        )
        assert report.status is Status.PASSED
        assert report.notes == ()

    return made_once(shared / "maps", make)


@pytest.fixture
def picture(tmp_path: Path) -> PictureFiles:
    """One picture of the model's size."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return PictureFiles(paths=(tmp_path / "picture.png",))


def test_the_graph_gives_the_backbones_maps_and_parity_compares_each(
    bundle: Path, state: dict[str, Tensor], tiny_architecture: Architecture
) -> None:
    model = model_from_state(tiny_architecture, Form.TRAINING, state, out_indices=INDICES)
    images = np.random.default_rng(1).standard_normal((3, 3, 64, 48)).astype(np.float32)
    found = OnnxRuntime(bundle / "model.fp32.onnx").run(images)
    assert tuple(found) == NAMES
    for values, expected in zip(found.values(), model.backbone(torch.from_numpy(images)), strict=True):
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-4, atol=1e-5)
    stored = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))
    by_name = {item["config"]["runtime"]: item["outputs"] for item in stored["candidates"]}
    assert [(item["name"], item["status"]) for item in by_name["onnxruntime"]] == [
        (name, "passed") for name in NAMES
    ]
    graph = Bundle.open(bundle).manifest.onnx[0]
    assert [spec.shape for spec in graph.outputs] == [
        ("batch", 8, 16, 12),
        ("batch", 16, 8, 6),
        ("batch", 32, 2, 2),
    ]
    assert graph.contents.provenance["output"] == "maps 0,2,6"


@pytest.mark.untraced
def test_a_wrong_norm_of_a_map_fails_parity_by_the_maps_name(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxRuntime.run

    def shifted(self: OnnxRuntime, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        return {name: v + 0.01 * (name == "stage2") for name, v in real(self, images).items()}

    monkeypatch.setattr(OnnxRuntime, "run", shifted)
    monkeypatch.setattr("riformer_deploy.api.parity.store_result", lambda *_: None)
    result = verify_bundle(bundle)
    assert result.status is Status.FAILED
    failed = {o.name for c in result.candidates for o in c.outputs if o.status is Status.FAILED}
    assert failed == {"stage2"}


def test_without_pytorch_parity_runs_on_the_maps_that_the_bundle_keeps(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity_reference, "available", lambda _: CandidateSet())
    kept = parity_reference.parity_reference(Bundle.open(bundle))
    assert set(NAMES) < kept.outputs.outputs.keys()
    load = StoredReference.load

    def without_maps(path: Path, content: bytes) -> StoredReference:
        stored = load(path, content)
        for name in NAMES:
            del stored.outputs.outputs[name]
        return stored

    monkeypatch.setattr(StoredReference, "load", without_maps)
    with pytest.raises(MissingDependencyError, match="keeps no outputs of the reference"):
        parity_reference.parity_reference(Bundle.open(bundle))


def test_features_are_pooled_from_the_last_stages_map_and_classes_are_refused(
    bundle: Path, picture: PictureFiles, tmp_path: Path
) -> None:
    arrays = []
    for group in (Group.TORCH, Group.ONNX):
        options = FeatureOptions(output=tmp_path / f"{group}.npz", group=group)
        extract_features(bundle, picture, options)
        with np.load(options.output) as stored:
            arrays.append(stored["features"])
    assert arrays[0].shape == (1, 32)
    np.testing.assert_allclose(arrays[1], arrays[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(BundleError, match="gives stage1 and stage2 and stage4; classes need logits"):
        predict_images(bundle, picture)
    assert predict_images(bundle, picture, group=Group.TORCH).predictions


def test_norms_of_maps_are_kept_by_export_and_fuse_and_named_by_inspect(
    bundle: Path, checkpoint: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    assert fuse_checkpoint(checkpoint, tmp_path / "deploy.pth").notes == ()
    for path in (tmp_path / "deploy.pth", bundle / "deploy.pth", bundle / "training.pth"):
        found = load_checkpoint(path, out_indices=POSITIONS)
        assert found.out_indices == INDICES
        assert torch.equal(found.state["backbone.norm2.weight"], state["backbone.norm2.weight"])
    inspection = inspect_file(checkpoint)
    assert isinstance(inspection, CheckpointInspection)
    assert (inspection.out_indices, inspection.config) == (INDICES, None)


def test_maps_without_a_norm_in_the_file_are_refused_before_any_work(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options = ExportOptions(
        checkpoint=tiny_checkpoint, output=tmp_path / "b", image_size_px=(64, 48), lowerings=(MAPS,)
    )
    with pytest.raises(OptionError, match="no norm for the maps at 0, 2") as caught:
        export_checkpoint(options)
    assert "get_model(..., out_indices=...)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
