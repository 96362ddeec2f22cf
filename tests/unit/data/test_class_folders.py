from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.common.errors import DatasetError
from riformer_deploy.data.class_folders import ClassList, match_folders
from riformer_deploy.data.class_names import imagenet_names

ROOT = Path("data")
PETS = ClassList(count=3, names=("cat", "dog", "newt"))
NAMELESS = ClassList(count=3, names=None)
IMAGENET = ClassList(count=1000, names=imagenet_names())


def test_numbers_are_numbers_and_not_places_in_the_order_of_strings() -> None:
    folders = sorted(map(str, range(1000)))  # as ImageNetV2 is published: 0, 1, 10, 100, ...
    for classes in (IMAGENET, ClassList(count=1000, names=None)):
        found = match_folders(ROOT, folders, classes)
        assert found.labels == {str(number): number for number in range(1000)}
        assert found.how == "named by the classes' numbers"


def test_some_numbers_and_leading_zeros_are_numbers_too() -> None:
    assert match_folders(ROOT, ["000", "002"], PETS).labels == {"000": 0, "002": 2}


@pytest.mark.parametrize("folders", [["1", "2", "3"], ["0", "00", "1"]], ids=["from one", "twice"])
def test_numbers_that_fit_no_classes_are_refused(folders: list[str]) -> None:
    with pytest.raises(DatasetError, match="cannot be matched"):
        match_folders(ROOT, folders, PETS)


def test_names_are_matched_exactly_then_ignoring_case_and_that_is_said() -> None:
    exact = match_folders(ROOT, ["cat", "newt"], PETS)
    assert (exact.labels, exact.notes) == ({"cat": 0, "newt": 2}, ())
    loose = match_folders(ROOT, ["Cat", "NEWT"], PETS)
    assert loose.labels == {"Cat": 0, "NEWT": 2}
    assert "ignoring case" in loose.how
    assert "capital letters" in loose.notes[0]


@pytest.mark.parametrize(
    ("folders", "names"),
    [(["Cat", "cat"], ("cat", "dog", "newt")), (["CAT"], ("cat", "Cat", "newt"))],
    ids=["two folders", "two classes"],
)
def test_case_decides_where_ignoring_it_would_be_ambiguous(
    folders: list[str], names: tuple[str, ...]
) -> None:
    with pytest.raises(DatasetError, match="cannot be matched"):
        match_folders(ROOT, folders, ClassList(count=3, names=names))


def test_where_names_are_known_the_order_is_never_taken() -> None:
    with pytest.raises(DatasetError, match="cannot be matched") as caught:
        match_folders(ROOT, ["ant", "bee", "cat"], PETS)
    assert caught.value.details == ("ant", "bee")
    found = match_folders(ROOT, ["ant", "bee", "cat"], NAMELESS)
    assert found.labels == {"ant": 0, "bee": 1, "cat": 2}
    assert "sorted order" in found.notes[0]


@pytest.mark.parametrize("folders", [["test", "train", "valid"], ["Train", "val"], ["cat", "dog", "test"]])
@pytest.mark.parametrize("classes", [PETS, NAMELESS])
def test_splits_are_never_classes(folders: list[str], classes: ClassList) -> None:
    with pytest.raises(DatasetError, match="parts of a dataset") as caught:
        match_folders(ROOT, folders, classes)
    assert caught.value.exit_code == 61
    assert "--split" in caught.value.remedy


def test_a_class_that_is_called_like_a_split_is_a_class() -> None:
    pets = ClassList(count=2, names=("test", "train"))
    assert match_folders(ROOT, ["test", "train"], pets).labels == {"test": 0, "train": 1}
