from __future__ import annotations

import json
from pathlib import Path

import pytest

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.class_names import (
    imagenet_ids,
    imagenet_names,
    read_class_names,
    resolve_class_names,
)

DATA = Path(__file__).resolve().parents[2] / "data"


def test_imagenet_has_a_thousand_names_in_the_order_of_the_sorted_ids() -> None:
    assert len(imagenet_names()) == len(set(imagenet_ids())) == 1000
    assert list(imagenet_ids()) == sorted(imagenet_ids())
    assert all(len(i) == 9 and i[0] == "n" and i[1:].isdigit() for i in imagenet_ids())


@pytest.mark.parametrize(
    ("index", "identity", "name"),
    [
        (0, "n01440764", "tench, Tinca tinca"),
        (134, "n02012849", "crane"),
        (281, "n02123045", "tabby, tabby cat"),
        (517, "n03126707", "crane"),
        (999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
    ],
)
def test_well_known_classes_are_where_they_belong(index: int, identity: str, name: str) -> None:
    assert (imagenet_ids()[index], imagenet_names()[index]) == (identity, name)


def test_every_name_is_there_and_only_crane_is_there_twice() -> None:
    assert all(name == name.strip() != "" for name in imagenet_names())
    assert {name for name in imagenet_names() if imagenet_names().count(name) > 1} == {"crane"}


def test_the_golden_labels_have_names() -> None:
    for row in json.loads((DATA / "predictions.json").read_text()):
        assert all(imagenet_names()[label] for label in row["top5_labels"])


@pytest.mark.parametrize("text", ["cat\ndog\n", "cat\r\ndog", "\ufeff cat \ndog\n\n\n"])
def test_a_file_has_one_name_a_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path, 2) == ("cat", "dog")


def test_a_file_that_does_not_fit_is_refused_with_every_reason(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\n\ndog\n")
    with pytest.raises(OptionError) as caught:
        read_class_names(path, 2)
    assert caught.value.details == ("line 2 is empty", "it holds 3 names; the model has 2 classes")
    with pytest.raises(OptionError, match="cannot be read"):
        read_class_names(tmp_path / "gone.txt", 2)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="cannot be read"):
        read_class_names(path, 2)


def test_the_surest_source_wins_and_an_assumption_is_said(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("a\nb\n")
    notes: list[str] = []
    assert resolve_class_names(("x", "y"), 2, file, notes) == ("a", "b")
    assert resolve_class_names(("x", "y"), 2, None, notes) == ("x", "y")
    assert resolve_class_names(None, 2, None, notes) is None
    assert notes == []
    assert resolve_class_names(None, 1000, None, notes) == imagenet_names()
    assert "ImageNet-1k" in notes[0]
