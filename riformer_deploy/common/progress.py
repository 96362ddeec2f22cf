"""How long work reports its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

Progress = Callable[[str], None]
"""Called with each step as it begins; with a :class:`Step` where it is one of many of the same work."""
CountCallback = Callable[[int, int], None]
"""Called with how much is done and how much there is in all (0 where that is not known)."""


class Step(str):
    """A step that is one of many: reads ``work, part``.

    Args:
        work: What is being done.
        part: How far it is, such as ``round 3 of 10``.

    Attributes:
        work: What is being done.
    """

    __slots__ = ("work",)
    work: str

    def __new__(cls, work: str, part: str) -> Self:
        """The text with both."""
        step = super().__new__(cls, f"{work}, {part}")
        step.work = work
        return step


def silent(_step: str) -> None:
    """Progress that nobody watches."""


def uncounted(_done: int, _total: int) -> None:
    """A count that nobody watches."""
