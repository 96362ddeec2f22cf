"""Resize, crop and normalisation against mmpretrain's own results and its rules."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.common import dependencies
from riformer_deploy.common.errors import ImageError, MissingDependencyError, OptionError
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.data.preprocessing import Preprocessing, ResizeBackend
from riformer_deploy.data.transforms import fit, normalize, resized_size
from riformer_deploy.model.variants import VARIANTS

DATA = Path(__file__).resolve().parents[2] / "data"
S12 = VARIANTS["riformer-s12_in1k"].preprocessing


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("riformer-s12_in1k", "small224"),
        ("riformer-s36_in1k", "small224"),
        ("riformer-m36_in1k", "medium224"),
        ("riformer-s24_in1k-384", "small384"),
        ("riformer-m48_in1k-384", "medium384"),
    ],
)
def test_the_golden_picture_is_what_mmpretrain_makes_of_it(name: str, golden: str) -> None:
    picture = decode_image(DATA / "astronaut.png")
    expected = np.asarray(Image.open(DATA / f"astronaut-{golden}.png"))
    np.testing.assert_array_equal(fit(picture, VARIANTS[name].preprocessing), expected)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((500, 375), (330, 248)),  # 330.67 is rounded down
        ((375, 500), (248, 330)),
        ((248, 248), (248, 248)),
        ((100, 100), (248, 248)),
        ((1, 1), (248, 248)),
        ((3, 2), (372, 248)),
        ((249, 250), (248, 248)),  # 248.996
    ],
)
def test_the_long_edge_is_rounded_down_as_mmpretrain_does(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_size(size, 248) == expected


@pytest.mark.parametrize(
    ("side", "first"),
    [(6, 1), (7, 2), (8, 2), (9, 2), (10, 3), (11, 4)],  # of (side - 4) / 2, halves go to the even neighbour
)
def test_the_crop_begins_where_mmcvs_does(side: int, first: int) -> None:
    picture = noise(side, side)
    found = fit(picture, Preprocessing(resize_short_edge_px=None, crop_px=(4, 4)))
    np.testing.assert_array_equal(found, picture[first : first + 4, first : first + 4])


def test_a_crop_may_be_oblong() -> None:
    picture = noise(20, 30)
    found = fit(picture, Preprocessing(resize_short_edge_px=None, crop_px=(10, 24)))
    np.testing.assert_array_equal(found, picture[5:15, 3:27])


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (100, 224), (223, 223), (1, 40), (1000, 33)])
def test_small_and_odd_pictures_are_enlarged_to_the_crop(shape: tuple[int, int]) -> None:
    found = fit(noise(*shape), S12)
    assert found.shape == (224, 224, 3)
    if shape == (1, 1):
        assert (found == noise(1, 1)).all()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_the_filter_is_the_recorded_one(interpolation: str) -> None:
    picture = noise(64, 64)
    preprocessing = Preprocessing(resize_short_edge_px=32, crop_px=(32, 32), interpolation=interpolation)
    expected = Image.fromarray(picture).resize((32, 32), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(fit(picture, preprocessing), np.asarray(expected))


def test_a_picture_smaller_than_the_crop_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match=r"tiny\.png is 5x9 px .* smaller than the crop of 8x8 px") as caught:
        fit(noise(9, 5), Preprocessing(resize_short_edge_px=None, crop_px=(8, 8)), name="tiny.png")
    assert "short-edge" in caught.value.remedy


def test_a_line_that_would_be_resized_beyond_all_memory_is_refused() -> None:
    with pytest.raises(ImageError, match=r"line\.png, resized from 20000x1 px, is too large"):
        fit(noise(1, 20_000), S12, name="line.png")


def test_normalisation_is_torchs_in_float32() -> None:
    pictures = [noise(5, 7, seed) for seed in range(3)]
    found = normalize(pictures, S12)
    mean, std = np.array(S12.mean, np.float32), np.array(S12.std, np.float32)
    expected = ((np.stack(pictures).astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


def test_the_means_belong_to_the_channels_in_the_networks_order() -> None:
    picture = np.zeros((1, 1, 3), np.uint8)
    picture[0, 0] = (10, 20, 30)
    bgr = Preprocessing(
        resize_short_edge_px=None, crop_px=(1, 1), mean=(1, 2, 3), std=(1, 2, 4), channel_order="BGR"
    )
    assert normalize([picture], bgr).ravel().tolist() == [29.0, 9.0, 1.75]


def test_a_resize_to_a_fixed_size_takes_no_heed_of_the_shape() -> None:
    picture = noise(64, 40)
    preprocessing = Preprocessing(resize_short_edge_px=None, resize_to_px=(30, 20), crop_px=(30, 20))
    expected = Image.fromarray(picture).resize((20, 30), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(fit(picture, preprocessing), np.asarray(expected))


OPENCV = Preprocessing(
    resize_short_edge_px=32,
    crop_px=(32, 32),
    interpolation="bilinear",
    resize_backend=ResizeBackend.OPENCV,
)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "lanczos", "nearest"])
def test_opencv_resizes_where_training_did_so(interpolation: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    picture = noise(64, 80)
    flags = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA,
             "lanczos": cv2.INTER_LANCZOS4, "nearest": cv2.INTER_NEAREST}  # fmt: skip
    expected = cv2.resize(picture, (40, 32), interpolation=flags[interpolation])[:, 4:36]
    preprocessing = dataclasses.replace(OPENCV, interpolation=interpolation)
    np.testing.assert_array_equal(fit(picture, preprocessing), expected)


def test_without_opencv_pictures_are_refused_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "_installed", lambda _module: None)
    with pytest.raises(MissingDependencyError, match="opencv-python-headless is not installed"):
        LoaderOptions(preprocessing=OPENCV)
    LoaderOptions(preprocessing=dataclasses.replace(OPENCV, resize_short_edge_px=None))


def test_steps_that_are_not_done_here_refuse_pictures_by_name() -> None:
    odd = dataclasses.replace(OPENCV, unsupported=("Pad is not done here",))
    with pytest.raises(OptionError, match="--preprocess short-edge") as caught:
        LoaderOptions(preprocessing=odd)
    assert caught.value.details == ("Pad is not done here",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"interpolation": "hamming"}, "cv2 has no interpolation hamming"),
        ({"resize_to_px": (40, 40)}, "exclude each other"),
        ({"resize_short_edge_px": None, "resize_to_px": (40, 31)}, "smaller than the crop"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(OPENCV, **settings)
