from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from riformer_deploy.api.run import RunOptions, Target, run_checkpoint
from tests.sharing import made_once


def _picture(rng: np.random.Generator, path: Path) -> None:
    Image.fromarray(rng.integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="session")
def labelled_pictures(shared: Path) -> Path:
    """Twenty-one pictures in the folders of the tiny model's seven classes; read only."""

    def make(path: Path) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        for label in range(7):
            (path / f"class {label}").mkdir(parents=True)
            for number in range(3):
                _picture(rng, path / f"class {label}" / f"{number}.png")

    return made_once(shared / "labelled", make)


@pytest.fixture(scope="session")
def calibration_pictures(shared: Path) -> Path:
    """Sixteen pictures without labels; read only."""

    def make(path: Path) -> None:
        rng = np.random.Generator(np.random.PCG64(1))
        path.mkdir()
        for number in range(16):
            _picture(rng, path / f"{number}.png")

    return made_once(shared / "calibrating", make)


@pytest.fixture(scope="session")
def asked(tiny_checkpoint: Path, labelled_pictures: Path) -> Callable[..., RunOptions]:
    """``asked(output, **options)``: a run of the tiny model on the CPU, as short as can be."""

    def options(output: Path, **changed: object) -> RunOptions:
        chosen: dict[str, object] = {
            "checkpoint": tiny_checkpoint,
            "output": output,
            "target": Target.CPU,
            "data": labelled_pictures,
            "image_size_px": (64, 48),
            "batches": (1,),
            "max_seconds": 0.01,
            **changed,
        }
        return RunOptions(**chosen)  # type: ignore[arg-type]  # the test's own

    return options


@pytest.fixture(scope="session")
def finished_run(shared: Path, asked: Callable[..., RunOptions]) -> Path:
    """The bundle that ``asked`` gives, without calibration images; read only."""
    pytest.importorskip("onnxsim", reason="onnxsim, which exporting needs, is not installed")

    def make(path: Path) -> None:
        torch.set_num_threads(1)
        run_checkpoint(asked(path))

    return made_once(shared / "run", make)


@pytest.fixture
def finished_copy(tmp_path: Path, finished_run: Path) -> Path:
    """A copy of ``finished_run`` that the test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
