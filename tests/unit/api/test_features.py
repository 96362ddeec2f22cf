from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.api.features import FeatureOptions, extract_features
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Group, OutputForm
from riformer_deploy.common.errors import (
    BundleConflictError,
    BundleError,
    BundleIntegrityError,
    ImageError,
    OptionError,
)
from riformer_deploy.data.image_files import PictureFiles
from tests.manifests import restate


@pytest.fixture
def pictures(tmp_path: Path, digits_data: dict[str, NDArray[Any]]) -> PictureFiles:
    """Five validation pictures and one that is broken, in the middle."""
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(digits_data["val_images"][number]).save(paths[-1])
    return PictureFiles(paths=(*paths[:2], tmp_path / "gone.png", *paths[2:]))


def test_pooled_features_are_what_the_head_takes(
    pictures: PictureFiles, digits_bundle: Path, digits_inputs: NDArray[np.float32], tmp_path: Path
) -> None:
    options = FeatureOptions(output=tmp_path / "f.npz", batch=2, workers=1)
    report = extract_features(digits_bundle, pictures, options)
    assert (report.array, report.shape, len(report.broken)) == ("features", (5, 128), 1)
    model = model_of(digits_bundle / "training.pth")
    with np.load(options.output) as stored, torch.inference_mode():
        expected = model.extract_feat(torch.from_numpy(digits_inputs[:5]), stage="pre_logits")
        np.testing.assert_allclose(stored["features"], expected.numpy(), rtol=1e-5, atol=1e-6)
        assert stored["images"].tolist() == [p for p in map(str, pictures.paths) if "gone" not in p]
        assert stored["features"].dtype == np.float32


@pytest.mark.parametrize(("stage", "shape"), [(1, (5, 16, 16, 16)), (4, (5, 128, 2, 2))])
@pytest.mark.untraced
def test_the_map_after_a_stage_is_its_last_blocks(
    stage: int,
    shape: tuple[int, ...],
    pictures: PictureFiles,
    digits_bundle: Path,
    digits_inputs: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    options = FeatureOptions(output=tmp_path / "f.npz", stage=stage)
    assert extract_features(digits_bundle, pictures, options).shape == shape
    backbone = model_of(digits_bundle / "training.pth").backbone
    with np.load(options.output) as stored, torch.inference_mode():
        x = backbone.patch_embed(torch.from_numpy(digits_inputs[:5]))
        for module in list(backbone.network)[: 2 * stage - 1]:
            x = module(x)
        np.testing.assert_allclose(stored[f"stage{stage}"], x.numpy(), rtol=1e-4, atol=1e-5)


def test_a_file_in_the_way_stays_unless_forced(
    pictures: PictureFiles, digits_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "f.npz"
    output.write_text("mine")
    with pytest.raises(BundleConflictError, match="exists already"):
        extract_features(digits_bundle, pictures, FeatureOptions(output=output))
    assert output.read_text() == "mine"
    extract_features(digits_bundle, pictures, FeatureOptions(output=output, force=True))
    with np.load(output) as stored:
        assert sorted(stored.files) == ["features", "images"]


def test_nothing_usable_writes_nothing(digits_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.npz"
    with pytest.raises(ImageError, match="None of the pictures") as caught:
        extract_features(digits_bundle, PictureFiles(paths=(tmp_path / "a",)), FeatureOptions(output=output))
    assert "no such file" in caught.value.details[0]
    assert not output.exists()


@pytest.fixture(scope="session")
def features_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The tiny model exported with pooled features as its output, at batch 2; read only."""
    output = tmp_path_factory.mktemp("bundles") / "features"
    lowering = LoweringConfig(output_form=OutputForm.FEATURES)
    export_checkpoint(
        ExportOptions(
            checkpoint=tiny_checkpoint, output=output, image_size_px=(64, 64), lowerings=(lowering,), batch=2
        )
    )
    return output


@pytest.mark.sampled(2)
@pytest.mark.parametrize("stage", [None, 3])
@pytest.mark.parametrize("group", [Group.ONNX, Group.OPENVINO])
def test_graphs_give_what_pytorch_gives_also_at_a_fixed_batch(
    pictures: PictureFiles, features_bundle: Path, tmp_path: Path, group: Group, stage: int | None
) -> None:
    if group is Group.OPENVINO:
        pytest.importorskip("openvino", reason="openvino is not installed")
    found = []
    for number, runs in enumerate((Group.TORCH, group)):
        output = tmp_path / f"{number}.npz"
        report = extract_features(
            features_bundle, pictures, FeatureOptions(output=output, group=runs, stage=stage, batch=3)
        )
        with np.load(output) as stored:
            found.append(stored[report.array])
    assert len(found[0]) == 5
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_pooled_features_of_a_graph_need_that_output_and_stages_of_an_engine_nothing_has(
    pictures: PictureFiles, digits_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "f.npz"
    with pytest.raises(BundleError, match="gives features") as caught:
        extract_features(digits_bundle, pictures, FeatureOptions(output=output, group=Group.ONNX))
    assert "--output-form features" in caught.value.remedy
    with pytest.raises(OptionError, match="does not show its stages"):
        FeatureOptions(output=output, group=Group.ENGINE, stage=1)


def test_there_are_four_stages() -> None:
    with pytest.raises(OptionError, match="1, 2, 3 or 4"):
        FeatureOptions(output=Path("f.npz"), stage=5)


def test_a_folder_that_is_not_there_is_an_option_error(
    pictures: PictureFiles, digits_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        extract_features(digits_bundle, pictures, FeatureOptions(output=tmp_path / "gone" / "f.npz"))


def test_a_graph_that_no_export_writes_is_opened_by_no_runtime(
    tiny_bundle_copy: Path, pictures: PictureFiles, tmp_path: Path
) -> None:
    model = onnx.load(tiny_bundle_copy / "model.fp32.onnx")
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, onnx.helper.make_node("Loop", ["", ""], [], body=body))
    restate(tiny_bundle_copy, "model.fp32.onnx", model.SerializeToString())
    for group in (Group.ONNX, Group.OPENVINO):
        options = FeatureOptions(output=tmp_path / "f.npz", stage=1, group=group)
        with pytest.raises(BundleIntegrityError, match="graphs within nodes"):
            extract_features(tiny_bundle_copy, pictures, options)
        assert not (tmp_path / "f.npz").exists()
