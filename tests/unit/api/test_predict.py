"""Pictures in, classes out: mmpretrain's own predictions on golden weights, and the digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from riformer_deploy.api.predict import predict_images
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import BundleError, OptionError
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.data.transforms import fit, normalize
from riformer_deploy.evaluation.classification import first_classes, softmax
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold, fuse
from riformer_deploy.model.variants import VARIANTS

DATA = Path(__file__).resolve().parents[2] / "data"
GOLDEN: list[dict[str, Any]] = json.loads((DATA / "predictions.json").read_text())


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] * ("-m" in row["config"])) for row in GOLDEN],
    ids=lambda row: row["config"],
)
@pytest.mark.untraced
def test_mmpretrains_predictions_are_reproduced(
    row: dict[str, Any], filled: Callable[..., dict[str, Tensor]]
) -> None:
    (variant,) = (v for v in VARIANTS.values() if v.config == row["config"])
    model = model_from_state(variant.architecture, Form.TRAINING, filled(variant.architecture))
    picture = decode_image(DATA / row["image"])
    images = normalize([fit(picture, variant.preprocessing)], variant.preprocessing)
    for form in (model, fuse(model), fold(model)):
        scores = softmax(PyTorchRuntime(form).run(images)["logits"])
        assert first_classes(scores, 5)[0].tolist() == row["top5_labels"]
        np.testing.assert_allclose(scores[0, row["top5_labels"]], row["top5_scores"], rtol=0, atol=1e-5)


@pytest.fixture
def digits(tmp_path: Path, digits_data: dict[str, NDArray[Any]]) -> list[Path]:
    """Ten validation pictures as files of five kinds that lose nothing, two of each."""
    paths = []
    for number in range(10):
        name = f"{number}." + ("png", "bmp", "webp", "ppm", "tif")[number % 5]
        paths.append(tmp_path / "digits" / name)
        paths[-1].parent.mkdir(exist_ok=True)
        options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(digits_data["val_images"][number]).save(paths[-1], **options)
    return paths


@pytest.mark.parametrize("group", [Group.TORCH, Group.ONNX])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_backend_gives_the_golden_scores(
    group: Group, batch: int, digits: list[Path], digits_bundle: Path, digits_data: dict[str, NDArray[Any]]
) -> None:
    report = predict_images(
        digits_bundle, PictureFiles(paths=tuple(digits)), group=group, top=10, batch=batch, workers=2
    )
    expected = softmax(digits_data["val_logits"][:10])
    assert [item.image for item in report.predictions] == [str(path) for path in digits]
    for item, row in zip(report.predictions, expected, strict=True):
        assert [g.label for g in item.guesses] == np.argsort(-row).tolist()
        np.testing.assert_allclose([g.score for g in item.guesses], np.sort(row)[::-1], rtol=0, atol=1e-5)
        assert [g.name for g in item.guesses] == [str(g.label) for g in item.guesses]
    assert report.broken == ()


def test_broken_pictures_are_named_beside_the_others(
    digits: list[Path], digits_bundle: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (9, 9)).save(small)
    paths = (tmp_path / "gone.png", digits[3], small, digits[4])
    report = predict_images(digits_bundle, PictureFiles(paths=paths), batch=2)
    assert [item.image for item in report.predictions] == [str(digits[3]), str(digits[4])]
    assert [item.image for item in report.broken] == [str(paths[0]), str(small)]
    assert "no such file" in report.broken[0].reason
    assert "smaller than the crop" in report.broken[1].reason


def test_classes_without_names_have_none(
    tiny_architecture: Architecture, tiny_bundle: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (48, 64), (9, 99, 199)).save(tmp_path / "x.png")
    report = predict_images(tiny_bundle, PictureFiles(paths=(tmp_path / "x.png",)), top=99)
    (prediction,) = report.predictions
    assert len(prediction.guesses) == tiny_architecture.num_classes
    assert sum(guess.score for guess in prediction.guesses) == pytest.approx(1)
    assert report.preprocessing == Bundle.open(tiny_bundle).manifest.model.preprocessing


def test_an_engine_that_is_not_there_says_so(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError):
        predict_images(tiny_bundle, PictureFiles(paths=(Path("x.png"),)), group=Group.ENGINE)


def test_openvino_says_the_same_as_onnx_runtime(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)).save(path)
    pictures = PictureFiles(paths=(path,))
    reports = [
        predict_images(tiny_bundle, pictures, group=group, top=3) for group in (Group.ONNX, Group.OPENVINO)
    ]
    labels = [[guess.label for guess in report.predictions[0].guesses] for report in reports]
    scores = [[guess.score for guess in report.predictions[0].guesses] for report in reports]
    assert labels[0] == labels[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert "OpenVINO" in reports[1].model


def test_a_top_of_nothing_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(OptionError, match="--top"):
        predict_images(tiny_bundle, PictureFiles(paths=()), top=0)


def test_files_folders_and_patterns_are_found_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/2.png", "b/1.JPG", "b/deep/3.webp", "b/notes.txt", "a.png", "c[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    found = find_pictures(["a.png", "b", "b/*.png", "b/**/*.webp", "c[1].png", "gone.png"])
    assert list(map(str, found.paths)) == [
        "a.png", "b/1.JPG", "b/2.png", "b/deep/3.webp", "b/2.png", "b/deep/3.webp", "c[1].png", "gone.png",
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError) as caught:
        find_pictures(["a.png", "empty", "*.gif"])
    assert caught.value.details == ("empty: a folder without pictures", "*.gif: matches nothing")
