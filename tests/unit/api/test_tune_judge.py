from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.api.tune_artifacts import TuneSetup
from riformer_deploy.api.tune_judge import LiveJudge
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import NormForm, Precision
from riformer_deploy.common.errors import RuntimeFailureError

HELD, GROUP = LoweringConfig(), LoweringConfig(norm=NormForm.GROUP)
UNUSABLE = LoweringConfig(precision=Precision.BF16)
"""ONNX Runtime has no CPU kernels for it."""


def test_what_runs_is_judged_against_the_reference_and_what_does_not_says_why(
    tune_setup: TuneSetup, tmp_path: Path
) -> None:
    judge = LiveJudge(tune_setup, tmp_path)
    found = judge.judge(HELD)
    assert found.failure is None
    assert found.artifact_sha256 == tune_setup.bundle.manifest.onnx[0].file.sha256
    assert found.sqnr_db is not None
    assert found.sqnr_db > 100
    assert (found.changed_percent, found.within_tolerance, found.top1_percent) == (0.0, True, None)
    assert found.spent_s > 0
    refused = judge.judge(UNUSABLE)
    assert refused.failure
    assert not refused.within_tolerance


def test_a_race_times_all_that_run_at_every_batch_size_and_names_the_others(
    tune_setup: TuneSetup, tmp_path: Path
) -> None:
    timed = LiveJudge(tune_setup, tmp_path).race({4: HELD, 7: GROUP, 9: UNUSABLE}, 0.2)
    assert {(lane.trial, lane.batch) for lane in timed.lanes} == {(4, 1), (4, 2), (7, 1), (7, 2)}
    rounds = {lane.batch: len(lane.samples_ms) for lane in timed.lanes if lane.trial == 4}
    assert all(len(lane.samples_ms) == rounds[lane.batch] > 1 for lane in timed.lanes)
    assert set(timed.failures) == {"9"}
    assert timed.spent_s > 0


def test_where_nothing_can_be_timed_every_trial_has_the_reason(
    tune_setup: TuneSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = LiveJudge(tune_setup, tmp_path)
    assert judge.race({9: UNUSABLE}, 0.1).lanes == ()

    def refused(*_arguments: object, **_options: object) -> None:
        raise RuntimeFailureError("nobody came to the end", details=["out of memory"])

    monkeypatch.setattr("riformer_deploy.api.tune_judge.measure_latency", refused)
    timed = judge.race({4: HELD}, 0.1)
    assert (timed.lanes, timed.failures) == ((), {"4": "nobody came to the end; out of memory"})
