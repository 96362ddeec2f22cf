from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from riformer_deploy_cli import latency_tables, tables

from riformer_deploy.graph_states import GraphState
from riformer_deploy.machine import Machine
from riformer_deploy.records import load_json
from riformer_deploy.results import (
    Inputs,
    LatencyResult,
    LatencySamples,
    ParityResult,
    Skipped,
    Status,
)
from riformer_deploy.summaries import summarise

MACHINE = Machine(
    cpu="a CPU [x]", cores=2, memory_bytes=None, system="Linux x86_64", python="3.11", libraries={}
)


@pytest.fixture
def proven(tiny_bundle: Path) -> ParityResult:
    return load_json(ParityResult, (tiny_bundle / "parity.json").read_text(encoding="utf-8"))


def _samples(name: str, batch: int, samples_ms: tuple[float, ...], warning: str | None) -> LatencySamples:
    return LatencySamples(
        name=name,
        batch=batch,
        samples_ms=samples_ms,
        preparation_ms=1.0,
        artifact_sha256="0" * 64,
        warning=warning,
        summary=summarise(np.array(samples_ms), batch),
    )


def _latency(*samples: LatencySamples, skipped: tuple[Skipped, ...] = ()) -> LatencyResult:
    return LatencyResult(
        schema=1,
        kind="latency",
        created_utc="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        inputs=Inputs(description="synthetic", image_size_px=(64, 48), batches=(1, 8), seed=0),
        threads=2,
        rounds=5,
        repeats=1,
        samples=samples,
        skipped=skipped,
        process_peak_rss_bytes=1,
    )


def _cells(text: str, first: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    return [row for row in rows if row[0] == first]


def test_parity_of_what_ran_plain_does_not_pass_as_a_graphs(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    named = dataclasses.replace(proven.candidates[0], name="RTX, CUDA graph")
    plain = dataclasses.replace(named, graph=GraphState.NOT_CAPTURABLE)
    graph = dataclasses.replace(plain, graph=GraphState.CAPTURABLE)
    tables.print_parity(dataclasses.replace(proven, candidates=(plain, graph)))
    out, _ = capsys.readouterr()
    assert len(_cells(out, "RTX, CUDA graph (NOT captured: runs plain)")) == 2
    assert len(_cells(out, "RTX, CUDA graph")) == 2


def test_latency_of_what_ran_plain_does_not_pass_as_a_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    named = _samples("RTX, CUDA graph", 1, (1.0,), None)
    plain = dataclasses.replace(named, graph=GraphState.NOT_CAPTURABLE)
    latency_tables.print_latency(_latency(plain, dataclasses.replace(plain, graph=GraphState.CAPTURED)))
    out, _ = capsys.readouterr()
    assert len(_cells(out, "RTX, CUDA graph (NOT captured: runs plain)")) == 1
    assert len(_cells(out, "RTX, CUDA graph")) == 1
    assert "Batch 1: RTX, CUDA graph (NOT captured: runs plain) is the fastest" in out


def test_parity_shows_the_figures_of_every_candidate_and_the_verdict(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.print_parity(proven)
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
    assert "Budget of fp32: |difference| <= 1e-05 + 0.0001 |reference|, stages <= 1e-05\n" in out
    assert out.endswith("Parity: passed\n")


def test_a_failed_candidate_shows_its_first_bad_block_and_changed_limits_are_marked(
    proven: ParityResult, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = dataclasses.replace(
        proven.candidates[-1],
        status=Status.FAILED,
        first_bad_block="backbone.network.4.1",
        budget=proven.candidates[-1].budget.with_changes(rtol=1e-9),
    )
    result = dataclasses.replace(
        proven,
        candidates=(*proven.candidates[:-1], bad),
        skipped=(Skipped(name="engine", reason="no [gpu] here"),),
        status=Status.FAILED,
    )
    tables.print_parity(result)
    out = capsys.readouterr().out
    assert _cells(out, bad.name)[1][-1] == "failed, first at backbone.network.4.1"
    assert "(limits changed by the user)\n" in out
    assert "skipped: engine: no [gpu] here\n" in out
    assert out.endswith("Parity: failed\n")


def test_latency_shows_figures_and_speed_up_over_the_first_model_of_the_same_batch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    latency_tables.print_latency(
        _latency(
            _samples("torch", 1, (10.0,) * 6, None),
            _samples("onnx", 1, (4.0,) * 6, None),
            _samples("torch", 8, (80.0,) * 6, None),
            _samples("onnx", 8, (50.0,) * 6, None),
        )
    )
    out = capsys.readouterr().out
    first, second = _cells(out, "onnx")
    assert first == ["onnx", "call", "1", "4.00", "4.00 to 4.00", "4.00", "4.00", "4.00", "250.0", "2.50x"]
    assert second[:5] == ["onnx", "call", "8", "50.00", "50.00 to 50.00"]
    assert second[5:] == ["50.00", "50.00", "50.00", "160.0", "1.60x"]
    assert [row[-1] for row in _cells(out, "torch")] == ["1.00x", "1.00x"]
    assert "(!)" not in out
    assert "5 rounds of 1 calls, 2 threads" in out
    assert "Machine: a CPU [x]" in out


def test_an_unstable_measurement_is_marked_in_its_row_and_explained_and_the_skipped_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    latency_tables.print_latency(
        _latency(
            _samples("torch", 1, (10.0, 10.0), None),
            _samples("onnx", 1, (4.0, 9.0), "the second half is 125% slower than the first"),
            skipped=(Skipped(name="onnx b2", reason="takes batch 2 only, not 1"),),
        )
    )
    out = capsys.readouterr().out
    assert _cells(out, "onnx (!)")[0][1:3] == ["call", "1"]
    assert _cells(out, "torch")
    assert "(!) onnx, call, batch 1: unstable: the second half is 125% slower than the first\n" in out
    assert "skipped: onnx b2: takes batch 2 only, not 1\n" in out
