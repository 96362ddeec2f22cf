from __future__ import annotations

import pytest
from riformer_deploy_cli.tables.tune import print_tuning

from riformer_deploy.common.enums import Precision
from riformer_deploy.evaluation.results import Status
from riformer_deploy.quantization.search import search
from riformer_deploy.quantization.search_records import TrialVerdict
from tests.judges import Figures, Known, task, tuned


def test_it_fits_80_columns_and_ends_in_the_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    trace = search(task(), Known(lambda c: 5.0 if c.precision is Precision.INT8 else 10.0))
    print_tuning(tuned(trace))
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= 80
    assert any("int8, the default form" in line and "2.00" in line for line in table)
    assert "Machine: a CPU; avx512_vnni; 2 threads" in lines
    assert lines[-1].startswith("Answer: model.int8.onnx (int8, ")
    assert "2.00 times as fast as the fastest of plain fp32, fp16, bf16 in OpenVINO" in lines[-1]


def test_failures_are_named_and_a_failed_answer_says_that_nothing_was_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trace = search(task(), Figures(4, failing=0.5))
    failed = [trial for trial in trace.trials if trial.verdict is TrialVerdict.FAILED]
    print_tuning(tuned(trace, status=Status.FAILED))
    lines = capsys.readouterr().out.splitlines()
    assert failed
    for trial in failed:
        assert f"failed: {trial.name}: {trial.judged.failure}" in lines
    assert lines[-1].startswith("Parity failed: ")


def test_a_plain_form_that_stays_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    trace = search(task(), Known(lambda c: 10.0 if c.precision is Precision.FP32 else 20.0))
    print_tuning(tuned(trace))
    assert "since no tuned form was confirmed to be faster" in capsys.readouterr().out.splitlines()[-1]
