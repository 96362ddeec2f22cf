from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., CompletedProcess[str]]


@pytest.fixture
def bundle(tiny_bundle_copy: Path) -> Path:
    return tiny_bundle_copy


@pytest.fixture
def small(tmp_path: Path, tiny_architecture: Any) -> Path:
    """Labelled noise for the tiny model."""
    rng = np.random.Generator(np.random.PCG64(0))
    path = tmp_path / "noise.npz"
    images = rng.integers(0, 256, (20, 64, 48, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(20) % tiny_architecture.num_classes)
    return path


def test_the_table_shows_every_artifact_and_comparison(cli: Cli, bundle: Path, small: Path) -> None:
    done = cli("verify", "accuracy", bundle, "--data", small, "--max-drop", "0", "--batch", "8")
    assert done.returncode == 0
    for text in ("PyTorch float32, training form", "deploy form", "ONNX Runtime fp32", "lost", "passed"):
        assert text in done.stdout
    assert "20 of 20 pictures" in done.stderr
    assert "s left" in done.stderr
    assert (bundle / "accuracy.json").is_file()


def test_its_tables_fit_80_columns(
    cli: Cli, bundle: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = cli("verify", "accuracy", bundle, "--data", small, "--with", "torch,onnx", "--max-drop", "1")
    table = [line for line in done.stdout.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(table) > 10
    assert max(map(len, table)) <= 80
    assert "picture by picture; allowed drop: 1" in done.stdout
    assert " -8.91 to +8.91 " in done.stdout


def _ran(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Runtime and precision of every artifact that took part."""
    return [(item["config"]["runtime"], item["config"]["precision"]) for item in record["artifacts"]]


def test_json_is_the_record_and_nothing_else(cli: Cli, bundle: Path, small: Path) -> None:
    done = cli("verify", "accuracy", bundle, "--data", small, "--with", "onnx", "--limit", "5", "--json")
    record = json.loads(done.stdout)
    assert (record["kind"], record["dataset"]["asked"], record["dataset"]["total"]) == ("accuracy", 5, 20)
    assert _ran(record) == [("onnxruntime", "fp32")]


def test_a_pass_that_says_less_is_printed_and_the_stored_one_stays(
    cli: Cli, bundle: Path, small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = ("verify", "accuracy", bundle, "--data", small)
    assert cli(*line).returncode == 0
    stored = [(bundle / name).read_bytes() for name in ("accuracy.json", "accuracy.csv")]
    for less in (("--limit", "5"), ("--with", "onnx")):
        caplog.clear()
        done = cli(*line, *less, "--json")
        assert (done.returncode, json.loads(done.stdout)["kind"]) == (0, "accuracy")
        assert "over 20 pictures and 3 artifacts; this one" in caplog.text
        assert [(bundle / name).read_bytes() for name in ("accuracy.json", "accuracy.csv")] == stored
    caplog.clear()
    assert cli(*line, "--limit", "5", "--max-drop", "100").returncode == 0  # another question
    assert "over 20 pictures and 3 artifacts, is replaced: this one is over 5 and 3" in caplog.text
    assert json.loads((bundle / "accuracy.json").read_text())["dataset"]["asked"] == 5
    caplog.clear()
    assert cli(*line).returncode == 0  # more: it is stored
    assert "not stored" not in caplog.text
    assert json.loads((bundle / "accuracy.json").read_text())["dataset"]["asked"] == 20


def test_a_gate_that_does_not_hold_is_exit_code_1(
    cli: Cli, bundle: Path, other_checkpoint: Path, small: Path, onnx_of: Callable[[Path], Path]
) -> None:
    """The ONNX file of other weights, recorded as if it belonged here: parity aside, its answers differ."""
    other = bundle.parent / "other"
    assert cli("export", other_checkpoint, "-o", other, "--image-size", "64x48").returncode == 0
    manifest = json.loads((bundle / "bundle.json").read_text())
    foreign = json.loads((other / "bundle.json").read_text())["onnx"][0]["file"]
    onnx_of(bundle).write_bytes(onnx_of(other).read_bytes())
    manifest["onnx"][0]["file"]["sha256"] = foreign["sha256"]
    manifest["onnx"][0]["file"]["size_bytes"] = foreign["size_bytes"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    line = ("verify", "accuracy", bundle, "--data", small)
    assert cli(*line).returncode == 0  # without a gate
    with (bundle / "accuracy.csv").open() as file:
        said = [int(row["PyTorch float32, training form: class"]) for row in csv.DictReader(file)]
    with np.load(small) as stored:
        images = stored["images"]
    np.savez(small, images=images, labels=np.array(said))  # now the baseline is always right
    record = json.loads(cli(*line, "--json").stdout)
    onnx = record["comparisons"][1]
    assert (onnx["lost"], onnx["gained"]) == (onnx["changed"], 0)
    assert onnx["drop_points"] == 5 * onnx["lost"] > 0
    assert cli(*line, "--max-drop", onnx["drop_points"]).returncode == 0
    done = cli(*line, "--max-drop", onnx["drop_points"] - 1)
    assert done.returncode == 1
    assert "failed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--data"),
        (("--data", "gone"), 61, "There is no dataset"),
        (("--data", "DATA", "--with", "onnx", "--max-drop", "1"), 2, "only one takes part"),
        (("--data", "DATA", "--limit", "0"), 2, "--limit"),
        (("--data", "DATA", "--workers", "0"), 2, "workers"),
        (("--data", "DATA", "--with", "engine"), 30, "engine"),
        (("--data", "DATA", "--with", "abacus"), 2, "abacus"),
    ],
)
def test_what_cannot_be_done_has_its_exit_code(
    arguments: tuple[str, ...], code: int, said: str, cli: Cli, bundle: Path, small: Path
) -> None:
    done = cli("verify", "accuracy", bundle, *(str(small) if a == "DATA" else a for a in arguments))
    assert done.returncode == code
    assert said in done.stderr
    assert not (bundle / "accuracy.json").exists()


@pytest.mark.usefixtures("no_gpu")
def test_engines_that_cannot_run_here_are_one_clear_error_or_left_out_with_a_warning(
    cli: Cli, engine_bundle_copy: Path, small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = ("verify", "accuracy", engine_bundle_copy, "--data", small, "--with", "engine")
    done = cli(*line)
    assert (done.returncode, done.stdout) == (51, "")
    assert "TensorRT-RTX fp32: there is no NVIDIA GPU to run on" in done.stderr
    done = cli(*line, "--with", "onnx", "--json")
    assert _ran(json.loads(done.stdout)) == [("onnxruntime", "fp32")]
    assert "TensorRT-RTX fp32 was left out: there is no NVIDIA GPU to run on" in caplog.text
