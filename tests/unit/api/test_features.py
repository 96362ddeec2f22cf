from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.api.features import FeatureOptions, extract_features
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.common.errors import BundleConflictError, ImageError, OptionError
from riformer_deploy.data.image_files import PictureFiles


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


def test_there_are_four_stages() -> None:
    with pytest.raises(OptionError, match="1, 2, 3 or 4"):
        FeatureOptions(output=Path("f.npz"), stage=5)


def test_a_folder_that_is_not_there_is_an_option_error(
    pictures: PictureFiles, digits_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        extract_features(digits_bundle, pictures, FeatureOptions(output=tmp_path / "gone" / "f.npz"))
