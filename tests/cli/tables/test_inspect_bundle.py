from __future__ import annotations

from riformer_deploy_cli.tables.inspect_bundle import classes_text


def test_dots_stand_for_names_that_are_left_out_alone() -> None:
    assert classes_text(4, ("ant", "bee", "cat", "dog")) == "4: ant, bee, cat, dog"
    assert classes_text(6, tuple("abcdef")) == "6: a, b, c, d, e…"
    assert classes_text(7, None) == "7, without names"
