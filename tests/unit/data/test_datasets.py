from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.common.errors import DatasetError, ImageError
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.class_names import imagenet_ids, imagenet_names
from riformer_deploy.data.datasets import open_dataset

PETS = ClassList(count=3, names=("cat", "dog", "newt"))
NAMELESS = ClassList(count=3, names=None)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("val/cat/1.png", ...)``: one-pixel pictures in the test's folder, each of its own grey."""

    def make(*names: str) -> Path:
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1, 1), (number, number, number)).save(path)
        return tmp_path

    return make


def labelled(location: Path, classes: ClassList = PETS, split: str = "val") -> list[tuple[str, int]]:
    return [(s.name, s.label) for s in open_dataset(location, classes, split=split).samples]


def test_class_folders_below_the_split_are_matched_by_name(write: Write) -> None:
    root = write("val/newt/1.png", "val/cat/2.png", "val/dog/a/b.PNG", "train/cat/1.png")
    assert labelled(root) == [("val/cat/2.png", 0), ("val/dog/a/b.PNG", 1), ("val/newt/1.png", 2)]
    assert labelled(root, split="train") == [("train/cat/1.png", 0)]
    assert open_dataset(root, PETS).layout == "3 class folders, named as the model's classes"


def test_class_folders_without_a_split_are_taken_and_that_is_said(write: Write) -> None:
    root = write("dog/1.png", "cat/1.jpeg", "newt/1.webp")
    assert labelled(root) == [("cat/1.jpeg", 0), ("dog/1.png", 1), ("newt/1.webp", 2)]
    assert "no folder val/" in open_dataset(root, PETS).notes[0]


def test_names_go_before_the_sorted_order(write: Write) -> None:
    digits = ClassList(count=11, names=tuple(map(str, range(11))))
    root = write(*(f"val/{number}/x.png" for number in range(11)))
    assert dict(labelled(root, digits))["val/10/x.png"] == 10  # sorted, "10" would be the third


def test_nameless_classes_are_numbered_in_sorted_order_as_mmpretrain_does(write: Write) -> None:
    root = write("val/b/1.png", "val/c/1.png", "val/a/1.png")
    assert labelled(root, NAMELESS) == [("val/a/1.png", 0), ("val/b/1.png", 1), ("val/c/1.png", 2)]
    assert "sorted order" in open_dataset(root, NAMELESS).layout


def test_a_part_of_imagenets_folders_keeps_their_numbers(write: Write) -> None:
    root = write(f"val/{imagenet_ids()[517]}/1.png", f"val/{imagenet_ids()[134]}/1.png")
    expected = [(f"val/{imagenet_ids()[number]}/1.png", number) for number in (134, 517)]
    assert labelled(root, ClassList(count=1000, names=imagenet_names())) == expected
    assert labelled(root, ClassList(count=1000, names=None)) == expected


def test_a_name_of_two_classes_matches_neither(write: Write) -> None:
    root = write("val/crane/1.png")
    with pytest.raises(DatasetError, match="cannot be matched"):
        open_dataset(root, ClassList(count=1000, names=imagenet_names()))


def test_folders_that_fit_nothing_are_named(write: Write) -> None:
    root = write("val/cat/1.png", "val/eel/1.png")
    with pytest.raises(DatasetError, match="cannot be matched") as caught:
        open_dataset(root, PETS)
    assert caught.value.details == ("eel",)
    assert caught.value.exit_code == 61


def test_a_flat_folder_is_labelled_by_its_list(write: Write, tmp_path: Path) -> None:
    root = write("val/ILSVRC_1.JPEG", "val/deep/er 2.JPEG", "val/3.JPEG")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "val.txt").write_text("ILSVRC_1.JPEG 2\ndeep/er 2.JPEG 0\n\ngone.JPEG 1\n")
    assert labelled(root) == [("val/ILSVRC_1.JPEG", 2), ("val/deep/er 2.JPEG", 0), ("val/gone.JPEG", 1)]
    dataset = open_dataset(root, PETS)
    assert np.asarray(dataset.picture(1))[0, 0, 0] == 1
    with pytest.raises(ImageError, match="no such file"):
        dataset.picture(2)


def test_bad_lines_of_a_list_are_all_named(write: Write, tmp_path: Path) -> None:
    root = write("val/1.png")
    (tmp_path / "meta").mkdir()
    listing = tmp_path / "meta" / "val.txt"
    listing.write_text("1.png 0\n1.png\n1.png x\n1.png -1\n")
    with pytest.raises(DatasetError, match="not FILE LABEL") as caught:
        open_dataset(root, PETS)
    assert [line.partition(":")[0] for line in caught.value.details] == ["line 2", "line 3", "line 4"]
    listing.write_text("1.png 3\n")
    with pytest.raises(DatasetError, match="no classes of the model"):
        open_dataset(root, PETS)


def test_files_that_are_no_pictures_and_empty_folders_are_said(write: Write, tmp_path: Path) -> None:
    root = write("val/cat/1.png", "val/dog/1.png")
    (tmp_path / "val" / "cat" / "readme.txt").write_text("no picture")
    (tmp_path / "val" / "cat" / ".hidden.png").write_text("no picture")
    (tmp_path / "val" / "newt").mkdir()
    dataset = open_dataset(root, PETS)
    assert len(dataset) == 2
    assert "left out, no pictures by their names: 1" in dataset.notes[0]
    assert "left out, hidden, or thumbnails: 1" in dataset.notes[1]
    assert "cat/.hidden.png" in dataset.notes[1]
    assert "newt" in dataset.notes[2]


@pytest.mark.parametrize("prefix", ["", "val_"])
def test_arrays_are_a_dataset(prefix: str, tmp_path: Path) -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    path = tmp_path / "data.npz"
    np.savez(path, **{f"{prefix}images": pixels, f"{prefix}labels": np.array([2, 0])})  # type: ignore[arg-type]
    dataset = open_dataset(path, PETS)
    assert [sample.label for sample in dataset.samples] == [2, 0]
    assert dataset.name_of(1) == f"data.npz:{prefix}images[1]"
    np.testing.assert_array_equal(dataset.picture(1), pixels[1])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((1, 2, 2, 3), np.uint8)}, "has no arrays labels"),
        ({"images": np.zeros((1, 2, 2, 3), np.float32), "labels": np.zeros(1, int)}, "cannot be used"),
        ({"images": np.zeros((1, 3, 2, 2), np.uint8), "labels": np.zeros(1, int)}, "cannot be used"),
        ({"images": np.zeros((1, 2, 2, 3), np.uint8), "labels": np.zeros(2, int)}, "cannot be used"),
        ({"images": np.zeros((1, 2, 2, 3), np.uint8), "labels": np.zeros(1)}, "cannot be used"),
        ({"images": np.zeros((1, 2, 2, 3), np.uint8), "labels": np.full(1, 3)}, "no classes of the model"),
        ({"images": np.array([None]), "labels": np.zeros(1, int)}, "not an .npz file"),  # pickled objects
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    arrays: dict[str, np.ndarray], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own
    with pytest.raises(DatasetError, match=reason):
        open_dataset(path, PETS)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_a_file_that_is_no_npz_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"not an \.npz file"):
        open_dataset(path, PETS)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DatasetError, match="holds one array"):
        open_dataset(path, PETS)


def test_nothing_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no dataset"):
        open_dataset(tmp_path / "gone", PETS)
    with pytest.raises(DatasetError, match="no class folders") as caught:
        open_dataset(tmp_path, PETS)
    assert "meta/SPLIT.txt" in caught.value.remedy
    for name in PETS.names or ():
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="holds no pictures"):
        open_dataset(tmp_path, PETS)


def test_a_limit_is_spread_over_all_classes(write: Write) -> None:
    root = write(*(f"val/{name}/{n}.png" for name in PETS.names or () for n in range(4)))
    dataset = open_dataset(root, PETS)
    limited = dataset.limited(6)
    assert [sample.label for sample in limited.samples] == [0, 0, 1, 1, 2, 2]
    assert (len(limited), limited.total) == (6, 12)
    assert dataset.limited(None) is dataset.limited(12) is dataset.limited(99) is dataset


def test_the_identity_follows_names_labels_sizes_and_times(write: Write, tmp_path: Path) -> None:
    root = write("val/cat/1.png", "val/dog/1.png", "val/newt/1.png")
    first = open_dataset(root, PETS).identity
    assert first == open_dataset(root, PETS).identity
    os.utime(tmp_path / "val/cat/1.png", ns=(1, 1))
    second = open_dataset(root, PETS).identity
    (tmp_path / "val/cat/1.png").rename(tmp_path / "val/cat/2.png")
    third = open_dataset(root, PETS).identity
    fourth = open_dataset(root, ClassList(count=3, names=("dog", "cat", "newt"))).identity
    assert len({first, second, third, fourth}) == 4
