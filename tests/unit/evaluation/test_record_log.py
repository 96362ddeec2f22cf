from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.common.errors import BundleError
from riformer_deploy.evaluation.record_log import RecordLog
from riformer_deploy.quantization.search_log import SearchStep
from riformer_deploy.quantization.search_records import Judged, Lane, Timed

STEPS = (
    SearchStep(asked="a", judged=Judged(spent_s=1.5, sqnr_db=1 / 3, failure="ü \ud800")),
    SearchStep(
        asked="b",
        timed=Timed(
            spent_s=0.1, lanes=(Lane(trial=0, batch=1, samples_ms=(0.1, 1 / 3)),), failures={"1": "no"}
        ),
    ),
)


def opened(path: Path) -> RecordLog[SearchStep]:
    return RecordLog(path, "key", SearchStep, lambda _step, _before: True, "search")


def test_records_come_back_as_they_were_and_another_process_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = opened(path)
    for step in STEPS:
        log.add(step)
    with pytest.raises(BundleError, match="Another search is writing"):
        opened(path)
    log.close(finished=False)
    again = opened(path)
    assert again.records == STEPS
    again.close(finished=True)
    assert not path.exists()


def test_a_record_that_does_not_fit_ends_what_is_believed(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    for step in STEPS:
        log.add(step)
    log.close(finished=False)
    fewer = RecordLog(tmp_path / "log", "key", SearchStep, lambda _step, before: not before, "search")
    assert fewer.records == STEPS[:1]
    fewer.close(finished=False)
    assert len((tmp_path / "log").read_text().splitlines()) == 2
