"""What stands in a checkpoint's content for objects that are not made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)  # compared by identity, so that hashing one looks at nothing
class Placeholder:
    """Stands for an object, a class or a function that a file names; nothing of it is imported or kept.

    Attributes:
        stands_for: The full name, such as ``mmengine.logging.history_buffer.HistoryBuffer``.
    """

    stands_for: str


@dataclass(frozen=True, eq=False)
class GlobalName(Placeholder):
    """Stands for the class or function itself, and not for what it was called for."""


@dataclass(frozen=True, eq=False)
class UnusableTensor(Placeholder):
    """Stands for a tensor whose values the file does not hold one by one.

    Attributes:
        why: What is wrong with it.
    """

    why: str
