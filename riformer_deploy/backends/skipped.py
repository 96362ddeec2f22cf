"""Candidates that take no part in a measurement, and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from riformer_deploy.backends.candidate_config import CandidateConfig

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A candidate that could not take part.

    Attributes:
        config: What it was to be.
        reason: Why, in one sentence.
    """

    config: CandidateConfig
    reason: str

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        return self.config.name


def names_by_reason(skipped: Iterable[Skipped]) -> dict[str, tuple[str, ...]]:
    """The names of what takes no part, each once, by the reason."""
    found: dict[str, tuple[str, ...]] = {}
    for item in skipped:
        found[item.reason] = tuple(dict.fromkeys((*found.get(item.reason, ()), item.name)))
    return found


def warn_of_skipped(skipped: Iterable[Skipped]) -> None:
    """Say what takes no part, those of the same reason in one line."""
    for reason, names in names_by_reason(skipped).items():
        _LOG.warning("%s %s left out: %s", ", ".join(names), "was" if len(names) == 1 else "were", reason)
