"""The commands that a GPU takes part in, as people run them, over engines that run on it."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from riformer_deploy.bundle.store import Bundle
from tests.conftest import ROOT
from tests.in_process import left_as_found, run_command

EXAMPLES = ROOT / "examples"
DIGITS = EXAMPLES / "digits"
CHECKPOINT = EXAMPLES / "riformer-digits.pth"
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """``cli("bench", path, ...)``: its exit code, stdout and stderr."""
    with left_as_found(monkeypatch):
        yield functools.partial(run_command, monkeypatch, capsys)


@pytest.fixture
def engines_copy(engines: Bundle, tmp_path: Path) -> Path:
    """The bundle with engines, for commands that write into it."""
    return Path(shutil.copytree(engines.directory, tmp_path / "digits"))


def answered(ran: CompletedProcess[str]) -> dict[str, Any]:
    """What ``--json`` printed, for a command that succeeded."""
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_every_engine_is_verified_and_its_top1_measured(cli: Run, engines_copy: Path) -> None:
    expected = {engine.precision.value for engine in Bundle.open(engines_copy).manifest.engines}
    parity = answered(cli("verify", "parity", engines_copy, "--with", "engine", "--json"))
    assert parity["status"] == "passed"
    assert {found["config"]["precision"] for found in parity["candidates"]} == expected
    line = (
        "verify",
        "accuracy",
        engines_copy,
        "--data",
        DIGITS,
        "--with",
        "torch,engine",
        "--max-drop",
        "1.5",
    )
    accuracy = answered(cli(*line, "--limit", "200", "--json"))
    measured = [found["config"] for found in accuracy["artifacts"]]
    assert {found["precision"] for found in measured if found["runtime"] != "pytorch"} == expected


def test_engines_are_timed_at_every_batch_size_plain_and_as_graphs(cli: Run, engines_copy: Path) -> None:
    line = ("bench", engines_copy, "--engine", "--batch", "1,8", "--baselines", "none", "--max-seconds", "8")
    table = cli(*line)
    assert table.returncode == 0, table.stderr
    assert "TensorRT" in table.stdout
    timed = answered(cli(*line, "--json"))
    found = {
        (sample["config"]["precision"], sample["config"]["cuda_graph"], sample["batch"])
        for sample in timed["samples"]
        if sample["config"]["runtime"] == "tensorrt"
    }
    held = {engine.precision.value for engine in Bundle.open(engines_copy).manifest.engines}
    assert found == set(itertools.product(held, (False, True), (1, 8)))


def test_an_engine_says_of_pictures_what_the_graph_says(cli: Run, engines_copy: Path) -> None:
    pictures = sorted((DIGITS / "calibration").glob("*.png"))[:4]
    answers = [
        answered(cli("predict", *pictures, engines_copy, "--with", name, "--precision", "fp32", "--json"))
        for name in ("onnx", "engine")
    ]
    of_graph, of_engine = (
        [item["guesses"][0]["label"] for item in answer["predictions"]] for answer in answers
    )
    assert of_graph == of_engine


def test_an_engine_is_searched_for_and_kept(cli: Run, engines_copy: Path) -> None:
    line = (
        "tune",
        engines_copy,
        "--with",
        "engine",
        "--calibration",
        DIGITS / "calibration",
        "--data",
        DIGITS,
    )
    found = answered(cli(*line, "--limit", "100", "--batch", "8", "--max-seconds", "45", "--json"))
    assert found["status"] == "passed"
    assert found["engine_file"] in {engine.file.path for engine in Bundle.open(engines_copy).manifest.engines}


@pytest.mark.usefixtures("engines")
def test_one_command_ends_in_a_choice_among_engines(cli: Run, tmp_path: Path) -> None:
    line = ("run", CHECKPOINT, "--image-size", "64", "-o", tmp_path / "bundle", "--target", "gpu")
    more = ("--calibration", DIGITS / "calibration", "--data", DIGITS, "--limit", "200")
    found = answered(cli(*line, *more, "--max-drop", "1.5", "--batch", "8", "--max-seconds", "20", "--json"))
    outcomes = {step["name"]: step["outcome"] for step in found["steps"]}
    assert {outcomes[name] for name in ("parity", "accuracy", "bench")} == {"done"}, outcomes
    (choice,) = found["choices"]
    assert (choice["batch"], choice["runtime"]) == (8, "tensorrt")
    assert choice["file"] in {
        engine.file.path for engine in Bundle.open(tmp_path / "bundle").manifest.engines
    }
