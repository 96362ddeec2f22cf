from __future__ import annotations

from typing import Any

import pytest

from riformer_deploy.checkpoints.config_values import Budget, merged, update


def test_dictionaries_merge_as_mmengine_s_do() -> None:
    base: dict[str, Any] = {"model": {"a": {"b": 1, "c": 2}, "d": [1]}, "x": 1}
    new: dict[str, Any] = {"model": {"a": {"b": 3}, "d": [2]}, "y": {"_delete_": True, "z": 1}}
    assert merged(new, base, Budget()) == {"model": {"a": {"b": 3, "c": 2}, "d": [2]}, "x": 1, "y": {"z": 1}}
    assert merged({"model": {"a": {"_delete_": True, "b": 3}}}, base, Budget())["model"]["a"] == {"b": 3}
    assert base["model"]["a"] == {"b": 1, "c": 2}


def test_a_dictionary_that_holds_itself_twice_is_merged_until_the_budget_is_spent() -> None:
    value: dict[str, Any] = {}
    for _ in range(40):
        value = {"a": value, "b": value}
    with pytest.raises(ValueError, match="more values than any config"):
        merged(value, value, Budget(10_000))
    with pytest.raises(ValueError, match="more values than any config"):
        update({**value}, value, Budget(10_000))
