from __future__ import annotations

import pytest
from riformer_deploy_cli.tables.compare import print_comparison

from riformer_deploy.api.compare import ComparisonReport, Status
from riformer_deploy.evaluation.latency_rounds import Ratio
from riformer_deploy.evaluation.results import Timing
from riformer_deploy.reporting.comparison_records import (
    AccuracyChange,
    FileChange,
    LatencyChange,
    ParityChange,
)

NAME = "TensorRT-RTX fp16 (layer norms, norm2 folded), CUDA graph"
FILE = "model.fp16.tensorrt-rtx.engine"


def test_it_fits_80_columns_and_breaks_no_name_that_people_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_comparison(
        ComparisonReport(
            before="old",
            after="new",
            files=(FileChange(path=FILE, before_sha256="a" * 64, after_sha256=None),),
            parity=(
                ParityChange(
                    name=NAME,
                    before=Status.PASSED,
                    after=Status.FAILED,
                    before_sqnr_db=101.25,
                    after_sqnr_db=None,
                ),
            ),
            accuracy=(
                AccuracyChange(
                    name=NAME,
                    before_percent=76.9,
                    after_percent=76.85,
                    drop_points=0.05,
                    drop_ci95_points=(-0.01, 0.11),
                    p_value=0.0731,
                    paired=True,
                ),
            ),
            latency=(
                LatencyChange(
                    name=NAME,
                    batch=128,
                    timing=Timing.COMPUTE_WARM,
                    before_ms=1234.567,
                    after_ms=1334.567,
                    slowdown=Ratio(value=1.081, ci95=(1.02, 1.142)),
                ),
            ),
            notes=(),
            failures=(),
            status=Status.PASSED,
        )
    )
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert len([line for line in table if line.startswith("┏")]) == 4
    assert max(map(len, table)) <= 80
    for text in (FILE, "a" * 16, "1234.567", "1334.567", "compute-warm", "+2.0 to +14.2 %", "+0.050"):
        assert any(text in line for line in table), text
    for word in NAME.split():
        assert any(word in line for line in table), word
