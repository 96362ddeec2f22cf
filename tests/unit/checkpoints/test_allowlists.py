from __future__ import annotations

from typing import Any

import pytest

from riformer_deploy.checkpoints.allowlists import Accepted, ClassName, Group, is_number, refusals, shown


def test_a_table_is_walked_as_it_is_given() -> None:
    table = Group(
        computed="a pair", settings={"a": Accepted(test=lambda v: v == 1, computed="1", required=True)}
    )
    assert refusals({"a": 1}, table, name="t", scope=None) == []
    assert refusals({"a": 2}, table, name="t", scope=None) == ["t.a is 2; computed here: 1"]
    assert refusals({}, table, name="t", scope=None) == ["t.a is not stored; computed here: 1"]
    assert refusals([], table, name="t", scope=None) == ["t is []; computed here: a pair"]
    assert refusals({"b c": 1}, table, name="t", scope=None)[0].startswith("t.'b c' is 1; this toolkit")


@pytest.mark.parametrize(
    ("found", "scope", "accepted"),
    [
        ("Part", None, True),
        ("Part", "mmpretrain", True),
        ("Part", "mine", False),
        ("mmpretrain.Part", "mine", True),
        ("mmpretrain.models.Part", None, True),
        ("torch.Part", None, False),
        ("mine.Part", "mmpretrain", False),
        ("Parts", None, False),
        ("", None, False),
        (None, None, False),
    ],
)
def test_a_class_is_told_by_its_name_and_where_it_is_looked_up(
    found: Any, scope: str | None, *, accepted: bool
) -> None:
    problems = refusals(found, ClassName(names=("Part",)), name="type", scope=scope)
    assert (problems == []) is accepted


@pytest.mark.parametrize(("root", "scope"), [("", "mine"), ("torch.nn.", None), ("mmcv.", "mine")])
def test_a_shared_layer_is_found_under_every_scope(root: str, scope: str | None) -> None:
    layer = ClassName(names=("Layer",), shared=True)
    assert refusals(f"{root}Layer", layer, name="type", scope=scope) == []
    assert refusals(f"mine.{root}Layer", layer, name="type", scope=scope) != []


def test_values_are_shown_briefly() -> None:
    assert shown({"a": [1, 2.5, "x", None]}) == "{'a': [1, 2.5, 'x', None]}"
    assert len(shown("x" * 10**6)) < 100
    assert len(shown(list(range(10**6)))) < 100
    assert shown(1 << 20_000) == "a number of too many digits"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep, deep]
    assert len(shown(deep)) < 500


def test_numbers_are_finite_and_no_booleans() -> None:
    assert all(map(is_number, [0, -1, 2.5, 1e-5]))
    assert not any(map(is_number, [True, None, "1", float("inf"), float("nan"), 1 << 2000, [1]]))
