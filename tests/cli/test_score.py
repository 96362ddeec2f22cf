from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Cli = Callable[..., CompletedProcess[str]]


def test_a_cluster_through_ray_client_and_models_of_no_cores_are_refused(
    cli: Cli, digits_bundle: Path, repository: Path, tmp_path: Path
) -> None:
    pictures, output = repository / "examples" / "digits" / "val", tmp_path / "s.parquet"
    done = cli("score", pictures, digits_bundle, "-o", output, "--cluster", "ray://head:10001", "--cpus", "0")
    assert done.returncode == 2
    assert "cpus must be at least 1, got 0" in done.stderr
    assert "'ray://head:10001'" in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_install_it_and_nothing_is_written(
    cli: Cli, digits_bundle: Path, repository: Path, tmp_path: Path
) -> None:
    pictures = repository / "examples" / "digits" / "val"
    done = cli("score", pictures, digits_bundle, "-o", tmp_path / "s.parquet")
    assert done.returncode == 20
    assert 'pip install "ray[data]>=' in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = cli("verify", "accuracy", digits_bundle, "--data", pictures, "--with", "onnx", "--cluster", "auto")
    assert (done.returncode, "ray is not installed" in done.stderr) == (20, True)


def test_options_of_a_cluster_are_refused_without_one(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    done = cli("verify", "accuracy", digits_bundle, "--data", tmp_path, "--actors", "2")
    assert (done.returncode, "Add --cluster" in done.stderr) == (2, True)
