from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from riformer_deploy_cli.tables.parity import print_parity

from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.system.records import Machine
from tests.candidates import labelled

MACHINE = Machine(
    cpu="a CPU [x]", cores=2, memory_bytes=None, system="Linux x86_64", python="3.11", libraries={}
)


@pytest.fixture
def proven(tiny_bundle: Path) -> ParityResult:
    return load_json(ParityResult, (tiny_bundle / "parity.json").read_text(encoding="utf-8"))


def _cells(text: str, first: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    return [row for row in rows if row[0] == first]


def test_parity_of_what_ran_plain_does_not_pass_as_a_graphs(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    named = dataclasses.replace(proven.candidates[0], config=labelled("RTX, CUDA graph"))
    plain = dataclasses.replace(named, graph=GraphState.NOT_CAPTURABLE)
    graph = dataclasses.replace(plain, graph=GraphState.CAPTURABLE)
    print_parity(dataclasses.replace(proven, candidates=(plain, graph)))
    out, _ = capsys.readouterr()
    assert len(_cells(out, "RTX, CUDA graph (NOT captured: runs plain)")) == 2
    assert len(_cells(out, "RTX, CUDA graph")) == 2


def test_parity_shows_the_figures_of_every_candidate_and_the_verdict(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    print_parity(proven)
    out, err = capsys.readouterr()
    assert err == ""
    assert len(proven.candidates) == 5
    for candidate in proven.candidates:
        outputs, stages = _cells(out, candidate.name)
        worst = candidate.outputs[0].deviation
        assert outputs[1:4] == ["logits", f"{worst.max_abs:.2e}", f"{worst.relative_l2:.2e}"]
        assert outputs[-1] == "passed"
        assert stages[1:5] == [f"{stage.deviation.relative_l2:.2e}" for stage in candidate.stages]
        assert stages[5:] == ["1.00e-05", "passed"]
    assert "Tolerance of fp32: |difference| <= 1e-05 + 0.0001 |reference|, stages <= 1e-05\n" in out
    assert out.endswith("Parity: passed\n")


def test_a_failed_candidate_shows_its_first_bad_block_and_changed_limits_are_marked(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(c for c in proven.candidates if c.runtime is RuntimeKind.ONNX_RUNTIME)
    stages = tuple(
        dataclasses.replace(stage, status=Status.FAILED) if stage.stage > 2 else stage
        for stage in good.stages
    )
    bad = dataclasses.replace(
        good,
        status=Status.FAILED,
        stages=stages,
        first_bad_block="backbone.network.4.1",
        tolerance=good.tolerance.with_changes(rtol=1e-9),
    )
    result = dataclasses.replace(
        proven,
        candidates=tuple(bad if c is good else c for c in proven.candidates),
        skipped=(Skipped(config=labelled("engine"), reason="no [gpu] here"),),
        status=Status.FAILED,
    )
    print_parity(result)
    out = capsys.readouterr().out
    assert _cells(out, bad.name)[1][-1] == "failed, first at backbone.network.4.1"
    assert "(limits changed by the user)\n" in out
    assert "skipped: engine: no [gpu] here\n" in out
    figures = [f"stage {n}: relative L2 {stages[n - 1].deviation.relative_l2:.2e}" for n in (3, 4)]
    assert out.splitlines()[-1] == (
        f"Parity: failed: ONNX Runtime fp32 (model.fp32.onnx), {figures[0]}, at most 1e-05 is allowed; "
        f"{figures[1]}, at most 1e-05 is allowed; first out at backbone.network.4.1 (on synthetic images)"
    )


def test_the_stages_verdict_is_their_own_where_the_outputs_fail(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    (good,) = (c for c in proven.candidates if c.runtime is RuntimeKind.OPENVINO)
    (output,) = good.outputs
    far = dataclasses.replace(output.deviation, sqnr_db=55.97, elementwise_used=1.2, relative_l2=1.6e-3)
    outputs = (dataclasses.replace(output, deviation=far, status=Status.FAILED),)
    bad = dataclasses.replace(
        good,
        outputs=outputs,
        tolerance=TOLERANCES[Precision.FP16],
        status=Status.FAILED,
        file="model.fp16.onnx",
    )
    candidates = tuple(bad if c is good else c for c in proven.candidates)
    print_parity(dataclasses.replace(proven, candidates=candidates))
    out = capsys.readouterr().out
    outputs_row, stages_row = _cells(out, bad.name)
    assert (outputs_row[-1], stages_row[-1]) == ("failed", "passed")
    assert out.splitlines()[-2:] == [
        "Parity: failed: OpenVINO fp32 (model.fp16.onnx), logits: SQNR 55.9 dB, at least 56 is needed "
        "(on synthetic images, this runtime's own verdict)",
        "Parity of the files: passed",
    ]
    engine = dataclasses.replace(bad, stages=(), config=labelled("engine", RuntimeKind.OPENVINO))
    print_parity(dataclasses.replace(proven, candidates=(*proven.candidates, engine)))
    assert _cells(capsys.readouterr().out, "engine")[1][-1] == "-"


def test_it_fits_80_columns_and_breaks_neither_figures_nor_names_of_blocks(
    proven: ParityResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    failed = dataclasses.replace(
        proven.candidates[3], first_bad_block="backbone.network.2.1", status=Status.FAILED
    )
    print_parity(
        dataclasses.replace(proven, candidates=(*proven.candidates[:3], failed), status=Status.FAILED)
    )
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= 80
    for candidate in proven.candidates[:3]:
        assert f" {candidate.outputs[0].deviation.relative_l2:.2e} " in out
    assert not any("network" in line for line in table)
    assert "first out at backbone.network.2.1" in out
