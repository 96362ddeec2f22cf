from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
Run = Callable[..., CompletedProcess[str]]


def test_steps_and_an_answer_are_printed_and_fit_80_columns(
    cli: Run, finished_copy: Path, run_line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = cli("run", *run_line, "-o", finished_copy)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line.split(": ")[:2] for line in lines[:7]] == [
        ["export", "skipped"],
        ["export", "reused"],
        ["build", "skipped"],
        ["parity", "reused"],
        ["accuracy", "reused"],
        ["bench", "reused"],
        ["report", "reused"],
    ]
    table = [line for line in lines if line.startswith(("┏", "┃", "│", "└"))]
    assert len(table) >= 5
    assert max(map(len, table)) <= 80
    assert any(".onnx" in line for line in table)
    answer = next(n for n, line in enumerate(lines) if line.startswith("Batch 1: ship model.fp"))
    assert lines[answer + 1].startswith("Timed in ")
    assert lines[-2].startswith("Not verified: ")
    assert lines[-1] == f"Report: {finished_copy / 'report.html'}"
    assert ran.stderr.splitlines()[-1].startswith("Next: riformer-deploy run ")


def test_json_holds_the_same_answer(cli: Run, finished_copy: Path, run_line: tuple[str, ...]) -> None:
    ran = cli("run", *run_line, "-o", finished_copy, "--json")
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["status"] == "passed"
    assert report["bundle"] == str(finished_copy)
    assert [choice["batch"] for choice in report["choices"]] == [1]
    assert report["choices"][0]["speed_up_ci95"][0] <= report["choices"][0]["speed_up"]
    assert {step["outcome"] for step in report["steps"]} == {"reused", "skipped"}
    assert "Next:" not in ran.stderr


def test_a_wrong_line_ends_before_anything_is_loaded(cli: Run, tmp_path: Path) -> None:
    ran = cli("run", tmp_path / "none.pth", "--max-drop", "1")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "name them with --data" in ran.stderr
    ran = cli("run", tmp_path / "none.pth")
    assert ran.returncode == 10
    ran = cli("run", tmp_path / "none.pth", "--target", "tpu")
    assert ran.returncode == 2


@pytest.mark.usefixtures("strict_float32")
def test_a_run_without_parity_exits_1_and_says_that_nothing_was_written(
    cli: Run, tmp_path: Path, run_line: tuple[str, ...]
) -> None:
    ran = cli("run", *run_line, "-o", tmp_path / "bundle")
    assert ran.returncode == 1, ran.stderr
    assert "export: failed: parity does not hold" in ran.stdout
    assert "nothing was written" in ran.stdout
    assert not (tmp_path / "bundle").exists()
