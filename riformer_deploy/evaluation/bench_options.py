"""How latencies are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from riformer_deploy.common.errors import OptionError
from riformer_deploy.evaluation.latency_rounds import FEWEST_ROUNDS
from riformer_deploy.system.machine import usable_cores


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How to measure.

    Attributes:
        batches: Batch sizes, each measured in its own rounds.
        rounds: Rounds per batch size, at least 5; in each, every candidate has one turn. None takes
            rounds until the ratio of every candidate to the strongest baseline (or to the first candidate,
            where there is none) has a narrow interval, or ``max_seconds`` are over.
        max_seconds: Limit of the whole measurement, where ``rounds`` is None: loading, compiling and warming
            up count. Whatever these take, half of the limit is left for rounds, and 6 rounds are always
            taken.
        repeats: Timed calls per turn, at least 1; an untimed one goes before them, so that no
            candidate pays for the caches and threads that the one before it left behind.
        warmup: Untimed calls of each candidate and batch size, at least 1; None makes 3, or fewer where those
            after the first, in which a runtime may compile, take a second.
        threads: CPU threads per candidate; None takes every core that the process may use.
        seed: Of the order in which candidates run in a round.
    """

    batches: tuple[int, ...] = (1, 8)
    rounds: int | None = None
    max_seconds: float = 60.0
    repeats: int = 1
    warmup: int | None = None
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not self.batches or min(self.batches) < 1:
            problems.append(f"batches must be positive, got {self.batches}")
        if self.rounds is not None and self.rounds < FEWEST_ROUNDS:
            problems.append(
                f"rounds must be at least {FEWEST_ROUNDS} for a median to mean anything, got {self.rounds}"
            )
        if not 0 < self.max_seconds < math.inf:
            problems.append(f"max-seconds must be a positive number, got {self.max_seconds}")
        problems += [
            f"{name} must be at least 1, got {value}"
            for name, value in (("repeats", self.repeats), ("warmup", self.warmup), ("threads", self.threads))
            if value is not None and value < 1
        ]
        if problems:
            raise OptionError("The measurement cannot be done as asked.", details=problems)

    @property
    def used_threads(self) -> int:
        """Threads per candidate."""
        return self.threads or usable_cores()
