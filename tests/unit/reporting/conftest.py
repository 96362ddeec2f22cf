from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle
from riformer_deploy.api.bench import bench_bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.evaluation.bench_options import BenchOptions

HOSTILE = "<script>alert(\"x\")</script> $\\alpha$ & 'quoted'.png"
"""A name of a picture that would be markup, mathematics and an attribute's end."""


@pytest.fixture(scope="session")
def measured_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven class folders of two pictures each, one of them with a hostile name."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.Generator(np.random.PCG64(0))
    for label in range(7):
        folder = root / f"class {label}"
        folder.mkdir()
        for number in range(2):
            name = HOSTILE.replace("/", "") if (label, number) == (3, 0) else f"{number}.png"
            Image.fromarray(rng.integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(folder / name)
    return root


@pytest.fixture(scope="session")
def measured_bundle(
    tiny_bundle: Path, measured_pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny bundle with latencies and accuracy; read only."""
    torch.set_num_threads(1)
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("measured") / "bundle"))
    accuracy_bundle(bundle, AccuracyOptions(data=measured_pictures))
    options = BenchOptions(batches=(1, 2), rounds=6, warmup=1, threads=1)
    bench_bundle(bundle, (Group.TORCH, Group.ONNX), options)
    return bundle
