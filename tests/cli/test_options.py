from __future__ import annotations

import pytest
import typer
from riformer_deploy_cli import options


@pytest.mark.parametrize(
    ("text", "size"),
    [("224", (224, 224)), ("64x48", (64, 48)), ("48X64", (48, 64)), ("3", (3, 3))],
)
def test_an_image_size_is_a_side_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert options.parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "abc", "x48", "64x", "64x48x3", "64,48", "6.4", "6_4", "64x4_8"])
def test_what_is_no_image_size_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say 224 or HEIGHTxWIDTH") as caught:
        options.parse_image_size(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(("text", "batch"), [("dynamic", None), ("1", 1), ("16", 16)])
def test_a_batch_is_dynamic_or_a_number(text: str, batch: int | None) -> None:
    assert options.parse_batch(text) == batch


@pytest.mark.parametrize("text", ["", "dyn", "two", "2.0", "1_6", "DYNAMIC!"])
def test_what_is_no_batch_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say dynamic or a number") as caught:
        options.parse_batch(text)
    assert repr(text) in caught.value.message
