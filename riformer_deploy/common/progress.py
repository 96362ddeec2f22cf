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
        done: How many steps of about the same length are done, this one not among them.
        total: How many there are; 0 where that is not known.
        series: What those steps have in common; by default ``work``.

    Attributes:
        work: What is being done.
        part: As given.
        done: As given.
        total: As given; with ``done`` it tells the time remaining.
        series: As given.
    """

    __slots__ = ("done", "part", "series", "total", "work")
    work: str
    part: str
    done: int
    total: int
    series: str

    def __new__(cls, work: str, part: str, *, done: int = 0, total: int = 0, series: str = "") -> Self:
        """The text with both."""
        step = super().__new__(cls, f"{work}, {part}")
        step.work, step.part, step.done, step.total, step.series = work, part, done, total, series or work
        return step


def within(work: str, progress: Progress) -> Progress:
    """Steps of a part as steps of the work that it belongs to, which read ``work: step``.

    Args:
        work: The whole.
        progress: Called with its steps.
    """

    def outer(step: str) -> None:
        if isinstance(step, Step):
            inner = f"{work}: {step.work}"
            progress(Step(inner, step.part, done=step.done, total=step.total, series=step.series))
        else:
            progress(f"{work}: {step}")

    return outer


def silent(_step: str) -> None:
    """Progress that nobody watches."""


def uncounted(_done: int, _total: int) -> None:
    """A count that nobody watches."""
