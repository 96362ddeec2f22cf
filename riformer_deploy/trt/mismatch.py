"""What keeps an engine from running on a machine, as a record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One reason why an engine cannot run.

    Attributes:
        problem: What does not fit.
        remedy: What would fix it.
    """

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}"
