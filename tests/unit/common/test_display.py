from __future__ import annotations

import pytest

from riformer_deploy.common.display import displayed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9 \u72d7 \U0001f415", "plain \u00e9 \u72d7 \U0001f415"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\rb\x00c\x7fd\x9be\tf", "a\\rb\\x00c\\x7fd\\x9be\\tf"),
        ("abc\u202egpj\u2066x\u200f", "abc\\u202egpj\\u2066x\\u200f"),
        ("one\u2028two\u2029", "one\\u2028two\\u2029"),
        ("zero\u200bwidth\ufeff\U000e0041", "zero\\u200bwidth\\ufeff\\U000e0041"),
        ("caf\udce9.jpg", "caf\\udce9.jpg"),
        ("no\u00a0break", "no break"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert displayed(text) == shown
    assert displayed(shown) == shown


def test_a_line_feed_is_a_new_line_in_a_message_and_spelled_in_a_cell() -> None:
    assert displayed("a\nb\x1b") == "a\nb\\x1b"
    assert displayed("a\nb", lines=False) == "a\\nb"


def test_a_long_line_is_cut_and_its_length_said() -> None:
    assert displayed("x" * 10_000_000, longest=5) == "xxxxx... (10,000,000 characters)"
