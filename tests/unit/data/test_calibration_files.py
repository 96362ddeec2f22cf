from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.common.errors import CalibrationError
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.calibration_files import calibration_set, folder_set, npz_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import normalize

SIZE = (16, 12)
PLAIN = Preprocessing(resize_short_edge_px=None, crop_px=SIZE)


def _pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def _all(images: CalibrationSet) -> NDArray[np.float32]:
    return np.concatenate(list(images.batches()))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(**arrays: Any) -> Path:
        np.savez(tmp_path / "set.npz", **arrays)
        return tmp_path / "set.npz"

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """70 pictures of 20x18 px, half of them in a subfolder."""
    root = tmp_path / "pictures"
    (root / "more").mkdir(parents=True)
    for index, pixels in enumerate(
        np.random.default_rng(1).integers(0, 256, (70, 18, 20, 3), dtype=np.uint8)
    ):
        Image.fromarray(pixels).save(root / ("more" if index % 2 else ".") / f"{index:03}.png")
    return root


def test_pictures_of_an_npz_are_normalised_and_in_order(save: Callable[..., Path]) -> None:
    pixels = _pixels(100)
    found = npz_set(save(images=pixels), PLAIN)
    assert np.array_equal(_all(found), normalize(pixels, PLAIN))
    assert (found.count, found.warnings, found.random, found.source) == (100, (), False, "set.npz")


def test_floats_of_an_npz_are_taken_as_they_are(save: Callable[..., Path]) -> None:
    images = normalize(_pixels(70), PLAIN)
    assert np.array_equal(_all(npz_set(save(anything=images, count=np.array(3)), PLAIN)), images)


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, *, compressed: bool) -> None:
    size = Preprocessing(resize_short_edge_px=None, crop_px=(64, 64))
    peaks = []
    for count in (64, 1024):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        (np.savez_compressed if compressed else np.savez)(tmp_path / "set.npz", images=pixels)
        del pixels
        tracemalloc.start()
        for _ in npz_set(tmp_path / "set.npz", size).batches():
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20  # 1024 pictures are 12 MiB


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": np.zeros((70, 8, 8, 3), np.uint8)}, r"\(N, 16, 12, 3\)"),
        ({"images": np.zeros((70, *SIZE, 3), np.float32)}, r"\(N, 3, 16, 12\)"),
        ({"images": np.zeros((70, *SIZE, 3), np.float64)}, "must hold one array of images"),
        ({"images": np.zeros((0, *SIZE, 3), np.uint8)}, "at least one image"),
        ({"images": np.full((70, 3, *SIZE), np.nan, np.float32)}, "not finite"),
        ({"images": np.asfortranarray(np.zeros((70, *SIZE, 3), np.uint8))}, "column by column"),
        ({"labels": np.zeros(70, np.int64)}, "must hold one array of images"),
        (
            {"a": np.zeros((9, *SIZE, 3), np.uint8), "b": np.zeros((9, *SIZE, 3), np.uint8)},
            "must hold one array",
        ),
    ],
)
def test_arrays_that_are_no_images_of_the_model_are_refused(
    save: Callable[..., Path], arrays: dict[str, Any], told: str
) -> None:
    with pytest.raises(CalibrationError, match=told):
        npz_set(save(**arrays), PLAIN)


def test_labels_beside_the_images_are_refused_unless_skipped(save: Callable[..., Path]) -> None:
    path = save(images=_pixels(70), labels=np.zeros(70, np.int64))
    with pytest.raises(CalibrationError, match="holds labels beside its images"):
        npz_set(path, PLAIN)
    assert npz_set(path, PLAIN, skip_bad=True).warnings == ("the array labels of set.npz was not used",)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_npz_is_refused(save: Callable[..., Path], kept: float) -> None:
    path = save(images=_pixels(70))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(CalibrationError, match=r"damaged or not an \.npz file"):
        npz_set(path, PLAIN)


def test_a_damaged_value_is_refused(save: Callable[..., Path]) -> None:
    path = save(images=_pixels(70))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CalibrationError, match="CRC"):
        npz_set(path, PLAIN)


def test_images_that_change_while_they_are_used_are_noticed(save: Callable[..., Path], folder: Path) -> None:
    arrays, pictures = npz_set(save(images=_pixels(70)), PLAIN), folder_set(folder, PLAIN)
    save(images=_pixels(70, seed=9))
    Image.fromarray(np.zeros((18, 20, 3), np.uint8)).save(folder / "002.png")
    for images in (arrays, pictures):
        with pytest.raises(CalibrationError, match="changed while"):
            _all(images)


def test_a_folder_is_read_with_its_subfolders_and_cropped(folder: Path) -> None:
    found = folder_set(folder, PLAIN)
    first = np.asarray(Image.open(folder / "000.png"))[1:17, 4:16]
    assert found.count == len(_all(found)) == 70
    assert np.array_equal(_all(found)[:1], normalize([first], PLAIN))
    assert found.warnings == ()


def test_files_that_cannot_be_used_are_all_named_and_the_rest_used_only_if_asked(folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:200])
    (folder / "labels.txt").write_text("000.png 3")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "small.png")
    with pytest.raises(CalibrationError, match="2 of the 72 files") as caught:
        folder_set(folder, PLAIN)
    assert all(any(name in text for text in caught.value.details) for name in ("broken.png", "small.png"))
    assert "--skip-bad" in caught.value.remedy
    found = folder_set(folder, PLAIN, skip_bad=True)
    assert found.count == 70
    assert len([text for text in found.warnings if text.startswith("skipped: ")]) == 2
    assert "left out, no pictures by their names: 1 (labels.txt)" in found.warnings


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, *, skip_bad: bool) -> None:
    with pytest.raises(CalibrationError, match="holds no pictures"):
        folder_set(tmp_path, PLAIN, skip_bad=skip_bad)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(CalibrationError, match="1 of the 1 files"):
        folder_set(tmp_path, PLAIN, skip_bad=skip_bad)


@pytest.mark.parametrize("source", ["nothing/here", "a\0b", "x" * 5000])
def test_a_source_that_is_not_there_is_refused(source: str) -> None:
    with pytest.raises(CalibrationError, match="no calibration data at"):
        calibration_set(source, PLAIN)


def test_a_source_is_random_a_folder_or_a_file(save: Callable[..., Path], folder: Path) -> None:
    assert calibration_set("random", PLAIN).random
    assert calibration_set(str(folder), PLAIN).source == "pictures"
    assert calibration_set(str(save(images=_pixels(70))), PLAIN).source == "set.npz"


def test_the_content_counts_and_not_the_name(save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(images=_pixels(70))
    copy = tmp_path / "copy.npz"
    copy.write_bytes(path.read_bytes())
    changed = _pixels(70)
    changed[-1, -1, -1, -1] ^= 1
    prepared = Preprocessing(resize_short_edge_px=None, crop_px=SIZE, channel_order="BGR")
    same, bgr = npz_set(path, PLAIN).content_sha256, npz_set(path, prepared).content_sha256
    assert npz_set(copy, PLAIN).content_sha256 == same
    assert len({same, bgr, npz_set(save(images=changed), PLAIN).content_sha256}) == 3
