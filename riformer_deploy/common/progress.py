"""How long work reports its steps."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""
CountCallback = Callable[[int, int], None]
"""Called with how much is done and how much there is in all (0 where that is not known)."""


def silent(_step: str) -> None:
    """Progress that nobody watches."""


def uncounted(_done: int, _total: int) -> None:
    """A count that nobody watches."""
