"""Two ways to run the command line: in this process, which is quick, and as the installed command."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from torch import Tensor

from riformer_deploy.common.enums import Precision
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.variants import VARIANTS, Variant
from tests.in_process import left_as_found, run_command


@pytest.fixture(autouse=True)
def _as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What commands leave behind is undone; one thread meanwhile: tiny models are quicker with one."""
    with left_as_found(monkeypatch):
        torch.set_num_threads(1)
        yield


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """``cli("export", path, ...)``: the entry point in this process; its exit code, stdout and stderr."""

    return functools.partial(run_command, monkeypatch, capsys)


@pytest.fixture(scope="session")
def installed_command() -> str:
    """The ``riformer-deploy`` that is installed beside this interpreter."""
    return str(Path(sys.executable).parent / "riformer-deploy")


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """``shell(program, *arguments)``: a process of its own in the test's folder, with no GPU to see."""

    def run(*line: str | Path) -> CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 (commands of this project)
            list(map(str, line)),
            cwd=tmp_path,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def tiny_variants(monkeypatch: pytest.MonkeyPatch, tiny_architecture: Architecture) -> tuple[Variant, ...]:
    """Two published models of the tiny shape, at 64 and at 96 px, known for the length of a test."""
    found = tuple(
        Variant(
            name=f"riformer-tiny-{side}",
            config="riformer-tiny",
            architecture=tiny_architecture,
            image_size_px=side,
            resize_short_edge_px=side + 8,
            top1_percent=50.0,
            top5_percent=75.0,
            published_params_m=0.01,
            published_flops_g=0.001,
            file_name=f"riformer-tiny-{side}-0123abcd.pth",
        )
        for side in (64, 96)
    )
    for variant in found:
        monkeypatch.setitem(VARIANTS, variant.name, variant)
    return found


@pytest.fixture
def ema_checkpoint(
    write_checkpoint: Callable[..., Path],
    tiny_architecture: Architecture,
    filled: Callable[..., dict[str, Tensor]],
) -> Path:
    """Averaged weights (the tiny model's) beside raw ones (those of seed 1), as mmengine's EMAHook saves."""
    raw = {f"module.{key}": value for key, value in filled(tiny_architecture, seed=1).items()}
    return write_checkpoint(name="ema.pth", ema_state_dict={**raw, "steps": torch.tensor(9)})


@pytest.fixture
def run_line(tiny_checkpoint: Path, labelled_pictures: Path) -> tuple[str, ...]:
    """Arguments of ``run`` that ``finished_run`` was made with."""
    line = (tiny_checkpoint, "--data", labelled_pictures, "--target", "cpu", "--image-size", "64x48")
    return (*map(str, line), "--batch", "1", "--max-seconds", "0.01")


@pytest.fixture
def strict_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tolerance of stages that no float32 model holds."""
    tolerance = dataclasses.replace(TOLERANCES[Precision.FP32], stage_relative_l2=1e-30)
    monkeypatch.setitem(TOLERANCES, Precision.FP32, tolerance)
