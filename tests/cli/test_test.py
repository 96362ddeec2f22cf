from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (14, 48, 48, 3), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(14) % 7)
    return path


def test_the_unfused_and_the_fused_model_are_as_accurate(
    cli: Run, tmp_path: Path, data: Path, tiny_checkpoint: Path, tiny_config: Path
) -> None:
    fused, deploy = tmp_path / "deploy.pth", tiny_config.with_name("tiny-deploy.py")
    assert cli("reparameterize", tiny_config, tiny_checkpoint, fused).returncode == 0
    lines = []
    for config, checkpoint in ((tiny_config, tiny_checkpoint), (deploy, fused)):
        ran = cli("test", config, checkpoint, "--data", data)
        assert ran.returncode == 0, ran.stderr
        lines.append(ran.stdout.splitlines()[-1])
    record = json.loads(cli("test", tiny_config, tiny_checkpoint, "--data", data, "--json").stdout)
    top1, top5 = (record["artifacts"][0][name]["percent"] for name in ("top1", "top5"))
    assert lines == [f"accuracy/top1: {top1:.4f}  accuracy/top5: {top5:.4f}"] * 2


def test_a_fused_file_needs_the_deploy_config(
    cli: Run, tmp_path: Path, data: Path, tiny_checkpoint: Path, tiny_config: Path
) -> None:
    fused = tmp_path / "deploy.pth"
    assert cli("fuse", tiny_checkpoint, "-o", fused).returncode == 0
    ran = cli("test", tiny_config, fused, "--data", data)
    assert ran.returncode == 15
    assert "model.backbone.deploy: the checkpoint is in deploy form" in ran.stderr


def test_the_default_place_of_the_pictures_is_mmpretrain_s(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("test", tiny_config, tiny_checkpoint)
    assert ran.returncode == 61
    assert "data/imagenet" in ran.stderr
