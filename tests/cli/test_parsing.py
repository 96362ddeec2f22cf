from __future__ import annotations

import pytest
import typer
from riformer_deploy_cli import parsing

from riformer_deploy.common.enums import OutputForm


@pytest.mark.parametrize(
    ("text", "size"),
    [("224", (224, 224)), ("64x48", (64, 48)), ("48X64", (48, 64)), ("3", (3, 3))],
)
def test_an_image_size_is_a_side_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parsing.parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "abc", "x48", "64x", "64x48x3", "64,48", "6.4", "6_4", "64x4_8"])
def test_what_is_no_image_size_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say 224 or HEIGHTxWIDTH") as caught:
        parsing.parse_image_size(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(("text", "batch"), [("dynamic", None), ("1", 1), ("16", 16)])
def test_a_batch_is_dynamic_or_a_number(text: str, batch: int | None) -> None:
    assert parsing.parse_batch(text) == batch


@pytest.mark.parametrize("text", ["", "dyn", "two", "2.0", "1_6", "DYNAMIC!"])
def test_what_is_no_batch_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say dynamic or a number") as caught:
        parsing.parse_batch(text)
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
    found = parsing.parse_output(text)
    assert found == (form, topk)
    assert isinstance(found[0], OutputForm)


@pytest.mark.parametrize("text", ["", "topk", "topk=", "topk=0", "topk=01", "topk=-1", "topk=1.5", "Logits"])
def test_what_is_no_output_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say logits, probabilities, features or topk=K") as caught:
        parsing.parse_output(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("7B", 7), ("3kib", 3 << 10), ("512MiB", 512 << 20), ("4 GiB", 4 << 30), ("0", 0)],
)
def test_a_size_of_memory_has_a_unit_or_is_in_bytes(text: str, size: int) -> None:
    assert parsing.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4GB", "4G", "-1", "1.5GiB", "1_0", "4GiB!", "lots"])
def test_what_is_no_size_of_memory_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="say 512MiB, 4GiB or a number of bytes") as caught:
        parsing.parse_size(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "profile"),
    [("1:8:32", (1, 8, 32)), ("4", (4, 4, 4)), ("2:2:2", (2, 2, 2)), ("1:1:9", (1, 1, 9))],
)
def test_a_profile_is_three_batch_sizes_or_one(text: str, profile: tuple[int, int, int]) -> None:
    found = parsing.parse_profile(text)
    assert (found.minimum, found.optimum, found.maximum) == profile


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (text, "say MIN:OPT:MAX")
            for text in ("", "1:8", "1:8:32:64", "a", "1-8-32", "1:8:", "-1", "1,8,32")
        ),
        *((text, "1 <= MIN <= OPT <= MAX") for text in ("0", "0:1:2", "8:1:32", "1:64:32", "32:8:1")),
    ],
)
def test_what_is_no_profile_is_refused_with_what_it_should_be(text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said) as caught:
        parsing.parse_profile(text)
    assert repr(text) in caught.value.message
