from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from riformer_deploy_cli.tables.latency import print_latency

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision, Role, RuntimeKind
from riformer_deploy.evaluation.latency_summary import instability, summarize
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    InputImages,
    LatencyResult,
    LatencySamples,
    Status,
    Timing,
)
from riformer_deploy.system.records import GpuState, GpuWatch, Machine
from tests.candidates import labelled

MACHINE = Machine(
    cpu="a CPU [x]", cores=2, memory_bytes=None, system="Linux x86_64", python="3.11", libraries={}
)
BASELINE = Role.BASELINE


def _samples(
    name: str,
    batch: int,
    samples_ms: tuple[float, ...],
    warning: str | None,
    role: Role = Role.CANDIDATE,
    timing: Timing = Timing.CALL,
) -> LatencySamples:
    return LatencySamples(
        config=labelled(name),
        batch=batch,
        role=role,
        timing=timing,
        samples_ms=samples_ms,
        preparation_ms=1.0,
        artifact_sha256="0" * 64,
        warning=warning,
        summary=summarize(np.array(samples_ms), batch),
    )


def _latency(*samples: LatencySamples, skipped: tuple[Skipped, ...] = ()) -> LatencyResult:
    return LatencyResult(
        schema=RESULT_SCHEMA,
        kind="latency",
        created_utc="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        inputs=InputImages(description="synthetic", image_size_px=(64, 48), batches=(1, 8), seed=0),
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


def test_latency_of_what_ran_plain_does_not_pass_as_a_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    named = _samples("RTX, CUDA graph", 1, (1.0,), None)
    plain = dataclasses.replace(named, graph=GraphState.NOT_CAPTURABLE)
    print_latency(_latency(plain, dataclasses.replace(plain, graph=GraphState.CAPTURED)))
    out, _ = capsys.readouterr()
    assert len(_cells(out, "RTX, CUDA graph (NOT captured: runs plain)")) == 1
    assert len(_cells(out, "RTX, CUDA graph")) == 1
    assert "is RTX, CUDA graph (NOT captured: runs plain), 1.00 ms" in out


def test_latency_shows_figures_and_speed_up_over_the_first_model_of_the_same_batch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_latency(
        _latency(
            _samples("torch", 1, (10.0,) * 6, None),
            _samples("onnx", 1, (4.0,) * 6, None),
            _samples("torch", 8, (80.0,) * 6, None),
            _samples("onnx", 8, (50.0,) * 6, None),
        )
    )
    out = capsys.readouterr().out
    assert _cells(out, "onnx") == [["onnx", "4.00", "250.0", "2.50x"], ["onnx", "50.00", "160.0", "1.60x"]]
    below = ["4.00 to 4.00", "2.50 to 2.50"], ["50.00 to 50.00", "1.60 to 1.60"]
    assert [[row[1], row[3]] for row in _cells(out, "") if row[3]] == [*map(list, below)]
    assert [row[-1] for row in _cells(out, "torch")] == ["1", "1"]
    assert "(!)" not in out
    assert "Batch 8: 6 rounds of 1 calls" in out
    assert "Speed-up is over the first model listed of the same batch size" in out
    assert "Machine: a CPU [x]; 2 threads" in out


def test_unstable_series_are_one_line_and_still_have_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    busy = (4.0, 9.0, 4.0, 9.0, 4.0, 9.0)
    twice = tuple(2 * value for value in busy)
    print_latency(
        _latency(
            _samples("torch", 1, twice, instability(twice), BASELINE),
            _samples("onnx", 1, busy, instability(busy)),
            skipped=(Skipped(config=labelled("onnx b2"), reason="takes batch 2 only, not 1"),),
        )
    )
    out = capsys.readouterr().out
    assert _cells(out, "onnx")[0][3] == "2.00x"
    assert out.count("(!)") == 1
    assert "(!) 2 of 2 series spread or drift by more than a tenth, as on a busy machine" in out
    assert "6.50 ms, 2.00 (2.00 to 2.00) times as fast as the strongest baseline, torch" in out
    assert "skipped: onnx b2: takes batch 2 only, not 1\n" in out


def test_it_fits_80_columns_and_breaks_no_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "PyTorch bfloat16, GPU, channels last, torch.compile max-autotune with CUDA graphs"
    print_latency(
        _latency(*_on_gpu(name, 1234.5678, 1111.1, BASELINE), *_on_gpu("engine", 4, 2, Role.CANDIDATE))
    )
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    assert {len(line) for line in table} == {80}
    for text in (" 1234.57 ", " 1234.57 to 1234.57 ", " compute-warm ", " 308.64 to 308.64 "):
        assert text in out


def test_the_answer_passes_over_what_failed_parity_and_names_what_gains_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def graph(precision: Precision, median_ms: float, parity: Status | None) -> LatencySamples:
        config = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=precision)
        return dataclasses.replace(_samples("", 1, (median_ms,) * 6, None), config=config, parity=parity)

    print_latency(
        _latency(
            _samples("torch", 1, (10.0,) * 6, None, BASELINE),
            graph(Precision.FP32, 4.0, Status.PASSED),
            graph(Precision.FP16, 2.0, Status.FAILED),
            graph(Precision.INT8, 5.0, Status.PASSED),
        )
    )
    out = capsys.readouterr().out
    assert "ONNX Runtime fp16 (failed parity)" in out
    assert out.splitlines()[-1] == (
        "Batch 1: the fastest that passed parity is ONNX Runtime fp32, 4.00 ms, 2.50 (2.50 to 2.50) times as "
        "fast as the strongest baseline, torch (whole calls). Slower than fp32 in the same runtime here: "
        "ONNX Runtime int8 (0.80x)."
    )


def _on_gpu(
    name: str, cold_ms: float, warm_ms: float, role: Role, warning: str | None = None
) -> list[LatencySamples]:
    cold, warm = (cold_ms,) * 6, (warm_ms,) * 6
    return [
        _samples(name, 8, cold, None, role),
        _samples(name, 8, cold, warning, role, Timing.COMPUTE),
        _samples(name, 8, warm, None, role, Timing.COMPUTE_WARM),
        _samples(name, 8, (0.5,) * 6, None, role, Timing.TRANSFERS),
        _samples(name, 8, (0.25,) * 6, None, role, Timing.STAGING),
    ]


def test_on_a_gpu_the_answer_is_by_kernels_over_the_strongest_baseline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_latency(
        _latency(
            *_on_gpu("eager", 9, 8, BASELINE),
            *_on_gpu("compiled", 6, 5, BASELINE),
            *_on_gpu("engine", 4, 2, Role.CANDIDATE),
        )
    )
    out = capsys.readouterr().out
    rows = {row[1]: row for row in _cells(out, "engine")}
    assert {timed: row[-2:] for timed, row in rows.items()} == {
        "call": ["2000.0", "1.50x"],
        "compute": ["2000.0", "1.50x"],
        "compute-warm": ["4000.0", "2.50x"],
        "transfers": ["-", "1.00x"],
        "staging": ["-", "1.00x"],
    }
    assert "Speed-up is over the strongest baseline of the same batch size and timing, within each" in out
    assert out.endswith(
        "Batch 8: the fastest (parity not verified) is engine, 4.00 ms, 1.50 (1.50 to 1.50) times as fast as "
        "the strongest baseline, compiled (kernels, L2 cache cold); 4000 images/s back to back.\n"
    )


def test_a_baseline_that_is_to_be_taken_with_care_gives_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    slow = "the host could not launch fast enough in 2 of 6 samples"
    print_latency(_latency(*_on_gpu("eager", 9, 8, BASELINE, slow), *_on_gpu("engine", 4, 2, Role.CANDIDATE)))
    out = capsys.readouterr().out
    assert f"(!) 1 series give no speed-up: eager, compute, batch 8: {slow}\n" in out
    assert "it cannot be compared with the strongest baseline, eager: see (!) (kernels, L2" in out


@pytest.mark.parametrize(
    ("role", "said"),
    [
        (
            Role.CANDIDATE,
            "Batch 1: the fastest (parity not verified) is only, 4.00 ms, and no baseline was measured "
            "(whole calls).",
        ),
        (BASELINE, "Batch 1: the fastest (parity not verified) is only, 4.00 ms (whole calls)."),
    ],
)
def test_one_role_alone_has_a_fastest(role: Role, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_latency(_latency(_samples("only", 1, (4.0,) * 6, None, role)))
    assert capsys.readouterr().out.endswith(f"{said}\n")


STATE = GpuState(
    name="NVIDIA H200",
    driver="580.1",
    sm_clock_mhz=1200,
    sm_clock_max_mhz=1980,
    memory_clock_mhz=3201,
    temperature_c=41,
    power_w=123.4,
    memory_used_bytes=7,
    throttling=(),
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "NVIDIA H200, 1200 of 1980 MHz, 41 C, 123 W"),
        ({"power_w": None, "sm_clock_mhz": None}, "NVIDIA H200, - of 1980 MHz, 41 C, - W"),
        ({"mig": "NVIDIA H200 MIG 1g.18gb"}, "NVIDIA H200 MIG 1g.18gb, 1200 of 1980 MHz, 41 C, 123 W"),
        ({"name": None}, "name unknown, 1200 of 1980 MHz, 41 C, 123 W"),
    ],
    ids=str,
)
def test_what_the_gpu_does_not_say_is_a_dash(
    change: dict[str, str | None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = dataclasses.replace(STATE, **change)  # type: ignore[arg-type]
    result = _latency(_samples("only", 1, (4.0,) * 6, None))
    watch = GpuWatch(before=state, after=STATE, problem=None)
    print_latency(dataclasses.replace(result, gpu=watch))
    assert f"GPU before: {said}\n" in capsys.readouterr().out
