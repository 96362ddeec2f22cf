"""A search that can be taken up again: its judge's answers are logged, and read again in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.quantization.search_records import Judge, Judged, Timed


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """One question to a judge, and its answer.

    Attributes:
        asked: sha256 of the question.
        judged: The answer about one config.
        timed: The answer about a race.
    """

    asked: str
    judged: Judged | None = None
    timed: Timed | None = None

    def __post_init__(self) -> None:
        if (self.judged is None) == (self.timed is None):
            raise ValueError("a step has one answer")


class StepLog(Protocol):
    """Where steps are kept; a :class:`~riformer_deploy.evaluation.record_log.RecordLog` of them is one."""

    @property
    def records(self) -> Sequence[SearchStep]:
        """Those of an interrupted search, in order."""

    def add(self, record: SearchStep) -> None:
        """Append one."""


class LoggedJudge(Judge):
    """Gives an interrupted search's answers for as long as it is asked the same, then asks the judge.

    A search asks what follows from the answers before, the seconds that they took among them, so a search
    that is taken up again goes the way that it would have gone without the interruption.

    Args:
        judge: Who is asked what the log does not tell.
        log: The answers so far.
    """

    def __init__(self, judge: Judge, log: StepLog) -> None:
        self._judge, self._log = judge, log
        self._left = list(log.records)

    def _logged(self, asked: str) -> SearchStep | None:
        if not self._left or self._left[0].asked != asked:
            self._left = []  # the rest belongs to another way
            return None
        return self._left.pop(0)

    @override
    def judge(self, config: LoweringConfig) -> Judged:
        asked = _digest(dump_json(config))
        step = self._logged(asked)
        if step is not None and step.judged is not None:
            return step.judged
        judged = self._judge.judge(config)
        self._log.add(SearchStep(asked=asked, judged=judged))
        return judged

    @override
    def race(self, configs: Mapping[int, LoweringConfig], seconds: float) -> Timed:
        asked = _digest(dump_json({str(number): config for number, config in configs.items()}), repr(seconds))
        step = self._logged(asked)
        if step is not None and step.timed is not None:
            return step.timed
        timed = self._judge.race(configs, seconds)
        self._log.add(SearchStep(asked=asked, timed=timed))
        return timed


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
