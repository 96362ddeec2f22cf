from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import torch

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.model.architecture import Form

Run = Callable[..., CompletedProcess[str]]


def test_it_writes_what_fuse_writes_with_the_arguments_of_mmpretrain_s_tool(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, tiny_config: Path
) -> None:
    target, fused = tmp_path / "deploy.pth", tmp_path / "fused.pth"
    ran = cli("reparameterize", tiny_config, tiny_checkpoint, target)
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy inspect {target}\n")
    assert ran.stdout.startswith(f"{target}: deploy form")
    assert cli("fuse", tiny_checkpoint, "-o", fused, "--config", tiny_config).returncode == 0
    found, other = load_checkpoint(target), load_checkpoint(fused)
    assert found.form is Form.DEPLOY
    assert all(torch.equal(value, other.state[key]) for key, value in found.state.items())
    again = cli("inspect", target)  # the config is stored with the weights, so their size is known
    assert (again.returncode, again.stderr) == (0, f"Next: riformer-deploy export {target}\n")
    assert "48" in again.stdout


def test_a_config_of_another_model_is_refused_by_name(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    target = tmp_path / "deploy.pth"
    ran = cli("reparameterize", "configs/riformer/riformer-s12_8xb128_in1k.py", tiny_checkpoint, target)
    assert ran.returncode == 15
    assert "layers: the tensors say [1, 1, 2, 1], the config [2, 2, 6, 2]" in ran.stderr
    assert not target.exists()
