from __future__ import annotations

import pytest
import typer
from riformer_deploy_cli import options

from riformer_deploy.choices import OutputForm


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


@pytest.mark.parametrize(
    ("text", "form", "topk"),
    [
        ("logits", OutputForm.LOGITS, 5),
        ("probabilities", OutputForm.PROBABILITIES, 5),
        ("features", OutputForm.FEATURES, 5),
        ("topk=1", OutputForm.TOPK, 1),
        ("topk=12", OutputForm.TOPK, 12),
    ],
)
def test_an_output_is_a_form_and_its_number_of_classes(text: str, form: OutputForm, topk: int) -> None:
    found = options.parse_output(text)
    assert found == (form, topk)
    assert isinstance(found[0], OutputForm)


@pytest.mark.parametrize("text", ["", "topk", "topk=", "topk=0", "topk=01", "topk=-1", "topk=1.5", "Logits"])
def test_what_is_no_output_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say logits, probabilities, features or topk=K") as caught:
        options.parse_output(text)
    assert repr(text) in caught.value.message
