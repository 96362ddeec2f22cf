from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest

from riformer_deploy.common.serialization import RecordError, dump_json, load_json, to_jsonable
from riformer_deploy.evaluation.tolerances import Tolerance
from riformer_deploy.model.architecture import Architecture


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    size: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size is {self.size}")


@dataclass(frozen=True, kw_only=True)
class Tree:
    text: str
    count: int
    ratio: float
    flag: bool
    nothing: None
    colour: Colour
    choice: Literal["a", 3]
    names: tuple[str, ...]
    pair: tuple[int, str]
    by_name: dict[str, Leaf]
    maybe: Leaf | None
    either: int | str | None
    leaves: tuple[tuple[Leaf, ...], ...] = ()
    extras: dict[str, float | None] = field(default_factory=dict)


TREE = Tree(
    text='quotes " and \\ and ü and \n and 🌳',
    count=2**70,
    ratio=0.1 + 0.2,
    flag=True,
    nothing=None,
    colour=Colour.BLUE,
    choice=3,
    names=("x", ""),
    pair=(-1, "y"),
    by_name={"one": Leaf(size=1), "a.b": Leaf(size=2, share=1e-300)},
    maybe=None,
    either="word",
    leaves=((), (Leaf(size=4), Leaf(size=5))),
    extras={"none": None, "third": 1 / 3},
)


@dataclass(frozen=True)
class Holder:
    x: float | None


@dataclass(frozen=True)
class OneOf:
    x: Literal[1, 2]


def problems_of(kind: type, text: str) -> tuple[str, ...]:
    with pytest.raises(RecordError) as caught:
        load_json(kind, text)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def changed(**changes: object) -> str:
    data = json.loads(dump_json(TREE))
    return json.dumps(data | changes)


def test_every_supported_type_comes_back_equal_and_of_its_own_type() -> None:
    again = load_json(Tree, dump_json(TREE))
    assert again == TREE
    assert repr(again) == repr(TREE)


def test_a_union_takes_each_of_its_types() -> None:
    assert load_json(Tree, changed(either=7)).either == 7
    assert load_json(Tree, changed(either=None)).either is None
    assert load_json(Tree, changed(maybe={"size": 3})).maybe == Leaf(size=3)


def test_text_is_readable_and_ends_in_a_newline() -> None:
    assert dump_json(Leaf(size=1)) == '{\n  "size": 1,\n  "share": 0.5\n}\n'
    assert "ü" in dump_json(TREE)


def test_an_integer_is_taken_for_a_float_and_becomes_one() -> None:
    value = load_json(Holder, '{"x": 2}').x
    assert value == 2.0
    assert isinstance(value, float)


def test_every_misfit_is_listed_at_once_with_its_place() -> None:
    text = changed(
        text=1, count=2.0, ratio="0.3", flag=0, nothing=False, colour="green", choice="b", names=["x", 1],
        pair=[1], by_name={"one": {"size": True}, "two": 3}, maybe=[], either=[1], leaves=[[], [{"sise": 1}]],
        extras=[], surplus=None,
    )  # fmt: skip
    assert sorted(problems_of(Tree, text)) == sorted(
        [
            "surplus: unknown field",
            "text: expected str, got 1",
            "count: expected int, got 2.0",
            'ratio: expected float, got "0.3"',
            "flag: expected bool, got 0",
            "nothing: expected NoneType, got false",
            "colour: expected 'red' or 'blue', got \"green\"",
            "choice: expected 'a' or 3, got \"b\"",
            "names[1]: expected str, got 1",
            "pair: expected 2 items, got [1]",
            "by_name.one.size: expected int, got true",
            "by_name.two: expected an object, got 3",
            "maybe: expected an object, got []",
            "either: expected int, got [1]",
            "leaves[1][0].sise: unknown field",
            "leaves[1][0].size: missing",
            "extras: expected dict, got []",
        ]
    )


def test_every_missing_field_without_a_default_is_listed() -> None:
    required = [name for name in Tree.__dataclass_fields__ if name not in {"leaves", "extras"}]
    assert problems_of(Tree, "{}") == tuple(f"{name}: missing" for name in required)


def test_what_a_dataclass_refuses_is_reported_with_its_place() -> None:
    text = changed(maybe={"size": -1}, by_name={"one": {"size": -2}})
    assert problems_of(Tree, text) == ("by_name.one: size is -2", "maybe: size is -1")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Tolerance, '{"rtol": -1, "atol": 0, "stage_relative_l2": 0}'),
        (Architecture, '{"layers": [1], "embed_dims": [1], "hidden_dims": [1], "num_classes": 0}'),
    ],
)
def test_what_our_own_records_refuse_is_a_record_error(kind: type, text: str) -> None:
    assert problems_of(kind, text)


@pytest.mark.parametrize("data", ["null", "3", "[]", '"text"'])
def test_something_else_than_an_object_is_refused_as_a_whole(data: str) -> None:
    assert problems_of(Leaf, data) == (f"the whole: expected an object, got {data}",)


@pytest.mark.parametrize("text", ["", "{", "{'x': 1}", '{"x": 1} {}', "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    (problem,) = problems_of(Holder, text)
    assert problem.startswith("not JSON: ")


@pytest.mark.parametrize("depth", [20, 60])
def test_deep_nesting_in_place_of_a_value_is_refused_and_shown_shortened(depth: int) -> None:
    (problem,) = problems_of(Holder, '{"x": ' + "[" * depth + "]" * depth + "}")
    assert problem.startswith("x: expected float, got [[[")
    assert len(problem) < 100


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_nan_and_infinity_are_refused_when_reading(number: str) -> None:
    assert problems_of(Holder, f'{{"x": {number}}}')


@pytest.mark.parametrize("digits", [400, 5000])
def test_an_integer_too_large_for_a_float_is_a_record_error(digits: int) -> None:
    assert problems_of(Holder, '{"x": 1' + "0" * digits + "}")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_when_writing(value: float) -> None:
    for holder in (Holder(value), {"deep": (Holder(value),)}):
        with pytest.raises(ValueError, match="has no place in a record"):
            dump_json(holder)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 1j, Leaf, object()])
def test_other_types_are_refused_when_writing(value: object) -> None:
    with pytest.raises(TypeError, match="has no place in a record"):
        to_jsonable({"x": [value]})


def test_keys_that_would_collide_as_text_are_refused_when_writing() -> None:
    with pytest.raises(TypeError):
        to_jsonable({1: "a", "1": "b"})


@pytest.mark.parametrize("data", ["true", "1.0"])
def test_a_literal_takes_its_own_type_only(data: str) -> None:
    assert problems_of(OneOf, f'{{"x": {data}}}')


def test_a_field_given_twice_is_refused() -> None:
    assert problems_of(OneOf, '{"x": 1, "x": 2}')


def test_a_name_that_is_not_utf_8_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg \xc3\xa9")
    text = dump_json({"name": name})
    (tmp_path / "record.json").write_text(text, encoding="utf-8")
    assert "\u00e9" in text
    found = load_json(dict[str, str], (tmp_path / "record.json").read_text(encoding="utf-8"))
    assert found == {"name": name}
    assert os.fsencode(found["name"]) == b"caf\xe9.jpg \xc3\xa9"
