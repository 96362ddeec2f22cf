"""How long work reports its steps."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""


def silent(_step: str) -> None:
    """Progress that nobody watches."""
