from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation import latency
from riformer_deploy.evaluation.results import LatencyResult

Run = Callable[..., CompletedProcess[str]]

QUICK = ("--rounds", "5", "--repeats", "1", "--warmup", "1", "--batch", "1", "--threads", "1")
EAGER = [f"PyTorch float32, {form} form" for form in ("training", "deploy", "folded")]
COMPILED = "PyTorch float32, folded form, torch.compile"
ONNX = "ONNX Runtime fp32"
OPENVINO = "OpenVINO fp32"


def test_json_is_the_result_with_raw_samples_that_the_bundle_then_holds(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    ran = cli("bench", tiny_bundle_copy, *QUICK, "--batch", "2", "--json")
    assert ran.returncode == 0, ran.stderr
    result = load_json(LatencyResult, ran.stdout)
    assert set(json.loads(ran.stdout)) == {field.name for field in dataclasses.fields(LatencyResult)}
    assert (result.rounds, result.repeats, result.threads) == (5, 1, 1)
    assert result.inputs.image_size_px == (64, 48)
    assert [(s.name, s.batch) for s in result.samples] == [
        (n, b) for b in (1, 2) for n in (*EAGER, ONNX, OPENVINO)
    ]
    assert {len(sample.samples_ms) for sample in result.samples} == {5}
    bundle = Bundle.open(tiny_bundle_copy)
    stored = bundle.path_of(bundle.manifest.results["latency"]).read_text(encoding="utf-8")
    assert load_json(LatencyResult, stored) == result
    assert set(bundle.manifest.results) == {"latency", "parity"}
    assert ran.stderr.splitlines()[-2:] == [f"preparing {OPENVINO}, batch 2", "batch 2"]


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (("--torch",), EAGER),
        (("--with", "torch, onnx"), [*EAGER, ONNX]),
        (("--with", "onnx", "--openvino"), [ONNX, OPENVINO]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_models_named_are_those_timed(
    cli: Run, tiny_bundle_copy: Path, selection: tuple[str, ...], names: list[str]
) -> None:
    ran = cli("bench", tiny_bundle_copy, *QUICK, *selection, "--json")
    assert ran.returncode == 0, ran.stderr
    assert [sample.name for sample in load_json(LatencyResult, ran.stdout).samples] == names


def test_torch_is_compiled_too_where_it_is_asked_for(
    cli: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates: list[str] = []

    def note(candidate: Candidate, *_: object) -> Skipped:
        candidates.append(candidate.name)
        return Skipped(config=candidate.config, reason="only its name was wanted")

    monkeypatch.setattr(latency, "_prepare", note)
    ran = cli("bench", tiny_bundle, *QUICK, "--torch", "--compile")
    assert ran.returncode == 50
    assert "Nothing could be measured" in ran.stderr
    assert candidates == [*EAGER, COMPILED]


@pytest.mark.parametrize("selection", [("--engine",), ("--engine", "--onnx")], ids=" ".join)
def test_engines_that_do_not_exist_are_an_error_and_never_left_out_quietly(
    cli: Run, tiny_bundle: Path, selection: tuple[str, ...]
) -> None:
    ran = cli("bench", tiny_bundle, *QUICK, *selection)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert "holds no TensorRT engine" in ran.stderr
    assert "riformer-deploy build" in ran.stderr


@pytest.mark.untraced
def test_without_a_number_of_rounds_it_ends_in_time_with_the_ratio_and_its_interval(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    ran = cli(
        "bench",
        tiny_bundle_copy,
        "--with",
        "torch,onnx",
        "--batch",
        "1",
        "--max-seconds",
        "1",
        "--threads",
        "1",
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(
        r"^Batch 1: the fastest that passed parity is ONNX Runtime fp32, [0-9.]+ ms, [0-9.]+ \([0-9.]+ to "
        r"[0-9.]+\) times as fast as the strongest baseline, PyTorch float32, (training|deploy|folded) form "
        r"\(whole calls\)\.$",
        ran.stdout,
        re.MULTILINE,
    )
    stored = json.loads((tiny_bundle_copy / "latency.json").read_text())
    assert stored["rounds"] >= 5
    assert {item["parity"] for item in stored["samples"]} == {"passed"}


def test_a_precision_chooses_graphs_and_keeps_what_they_are_compared_with(
    cli: Run, tiny_bundle: Path
) -> None:
    ran = cli("bench", tiny_bundle, *QUICK, "--precision", "fp16,fp32")
    assert (ran.returncode, ran.stdout) == (30, "")
    assert "holds no model in fp16; it holds fp32." in ran.stderr


def test_text_shows_every_model_and_how_it_was_measured(cli: Run, tiny_bundle_copy: Path) -> None:
    ran = cli("bench", tiny_bundle_copy, *QUICK, "--onnx", "--threads", "2")
    assert ran.returncode == 0, ran.stderr
    assert "5 rounds of 1 calls" in ran.stdout
    assert "; 2 threads\n" in ran.stdout
    assert f"│ {ONNX}" in ran.stdout
    assert "Speed-up is over the first model listed of the same batch size and timing, within" in ran.stdout


def test_an_unstable_measurement_is_shown_with_its_reason(
    cli: Run, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10_000))
    # every call takes twice as long as the one before it, so that the run drifts without end
    monkeypatch.setattr(latency, "_call_ms", lambda *_: float(2 ** (next(ticks) % 5)))
    ran = cli("bench", tiny_bundle_copy, *QUICK, "--onnx")
    assert ran.returncode == 0
    assert ran.stdout.count("(!)") == 1
    assert "(!) 1 of 1 series spread or drift by more than a tenth" in ran.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rounds", "4"), "rounds must be at least 5 for a median to mean anything, got 4"),
        (("--repeats", "0"), "repeats must be at least 1, got 0"),
        (("--warmup", "0"), "warmup must be at least 1, got 0"),
        (("--threads", "0"), "threads must be at least 1, got 0"),
        (("--batch", "0"), "batches must be positive, got (0,)"),
        (("--batch", "dynamic"), "'dynamic' is not an integer"),
        (("--with", "onnx,abacus"), "'abacus' is not one of 'torch', 'onnx', 'openvino', 'engine'"),
        (("--max-seconds", "0"), "max-seconds must be a positive number, got 0.0"),
        (("--onnx", "--baselines", "all"), "--baselines all is for what engines are measured against"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_measurement_that_would_mean_nothing_is_refused(
    cli: Run, tiny_bundle: Path, options: tuple[str, ...], said: str
) -> None:
    ran = cli("bench", tiny_bundle, *options)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr


NO_GPU_HERE = "there is no NVIDIA GPU to run on: no NVIDIA driver (libcuda.so.1) is installed."


@pytest.mark.usefixtures("no_gpu")
def test_engines_that_cannot_run_here_are_listed_with_the_reason(cli: Run, engine_bundle_copy: Path) -> None:
    ran = cli("bench", engine_bundle_copy, *QUICK, "--engine", "--onnx", "--json")
    assert ran.returncode == 0, ran.stderr
    result = load_json(LatencyResult, ran.stdout)
    assert [sample.name for sample in result.samples] == [ONNX]
    assert [item.name for item in result.skipped] == ["TensorRT-RTX fp32"]
    assert result.skipped[0].reason.startswith(NO_GPU_HERE)


@pytest.mark.usefixtures("no_gpu")
def test_engines_alone_that_cannot_run_here_are_one_clear_error(cli: Run, engine_bundle: Path) -> None:
    ran = cli("bench", engine_bundle, *QUICK, "--engine")
    assert (ran.returncode, ran.stdout) == (51, "")
    said = f"error: No engine of the bundle can run on this machine.\n  - TensorRT-RTX fp32: {NO_GPU_HERE}"
    assert said in ran.stderr


def test_a_narrower_bench_keeps_the_figures_that_it_does_not_measure(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    assert cli("bench", tiny_bundle_copy, *QUICK, "--torch", "--no-compile").returncode == 0
    wide = (tiny_bundle_copy / "latency.json").read_text(encoding="utf-8")
    ran = cli("bench", tiny_bundle_copy, *QUICK, "--onnx")
    assert ran.returncode == 0, ran.stderr
    assert "note: latency-1.json keeps the session of " in ran.stderr
    assert (tiny_bundle_copy / "latency-1.json").read_text(encoding="utf-8") == wide
    newest = load_json(LatencyResult, (tiny_bundle_copy / "latency.json").read_text(encoding="utf-8"))
    assert {sample.name for sample in newest.samples} == {ONNX}
