from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Cli = Callable[..., CompletedProcess[str]]


def test_a_repository_is_written_and_how_to_start_it_is_said(
    cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "models"
    done = cli("serve", "triton", digits_bundle, "-o", output, "--name", "digits")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{output}: digits, digits-preprocess, digits-network, serving model.fp32.onnx"
    assert lines[2].startswith("docker run")
    again = cli("serve", "triton", digits_bundle, "-o", output, "--json")
    assert (again.returncode, json.loads(again.stdout)["error"]["kind"]) == (32, "BundleConflictError")
    done = cli("serve", "triton", digits_bundle, "-o", output, "--preprocess", "none", "--force", "--json")
    assert json.loads(done.stdout)["models"] == ["riformer-digits-network"]


def test_engines_of_tensorrt_rtx_are_refused_with_the_reason(
    cli: Cli, engine_bundle: Path, tmp_path: Path
) -> None:
    done = cli("serve", "triton", engine_bundle, "-o", tmp_path / "models", "--with", "engine")
    assert done.returncode == 30
    assert "Triton has no backend for engines of TensorRT-RTX" in done.stderr
    assert not (tmp_path / "models").exists()
