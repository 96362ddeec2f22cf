from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from torch import Tensor

from riformer_deploy.api.fuse import FuseReport
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import load_json
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state

Run = Callable[..., CompletedProcess[str]]


def _model(path: Path) -> RIFormer:
    loaded = load_checkpoint(path)
    state = {key: value.double() for key, value in loaded.state.items()}
    return model_from_state(loaded.architecture, loaded.form, state)


def test_json_is_the_report_and_the_file_computes_the_same_function(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    target = tmp_path / "deploy.pth"
    ran = cli("fuse", tiny_checkpoint, "-o", target, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    report = load_json(FuseReport, ran.stdout)
    assert set(json.loads(ran.stdout)) == {field.name for field in dataclasses.fields(FuseReport)}
    fused = load_checkpoint(target)
    assert report == FuseReport(
        output=str(target),
        sha256=sha256_of(target),
        source_form=Form.TRAINING,
        parameters=sum(value.numel() for value in fused.state.values()),
    )
    assert fused.form is Form.DEPLOY
    images = torch.randn(2, 3, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_model(target)(images), _model(tiny_checkpoint)(images), rtol=1e-5, atol=1e-6)
    assert list(tmp_path.iterdir()) == [target]


def test_text_names_the_file_its_size_and_its_sha256(cli: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    target = tmp_path / "deploy.pth"
    ran = cli("fuse", tiny_checkpoint, "-o", target)
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy inspect {target}\n")
    count = sum(value.numel() for value in load_checkpoint(target).state.values())
    assert ran.stdout == f"{target}: deploy form, {count:,} parameters, sha256 {sha256_of(target)}\n"


def test_a_deploy_form_checkpoint_is_noted_on_stderr_and_its_weights_stay(
    cli: Run,
    tmp_path: Path,
    write_checkpoint: Callable[..., Path],
    tiny_architecture: Architecture,
    filled: Callable[..., dict[str, Tensor]],
) -> None:
    state = filled(tiny_architecture, Form.DEPLOY)
    ran = cli("fuse", write_checkpoint(state), "-o", tmp_path / "deploy.pth")
    assert ran.returncode == 0
    assert ran.stderr == "note: the checkpoint was in deploy form already; its weights are unchanged\n" + (
        f"Next: riformer-deploy inspect {tmp_path / 'deploy.pth'}\n"
    )
    assert "deploy form" in ran.stdout
    written = load_checkpoint(tmp_path / "deploy.pth").state
    assert all(torch.equal(written[key], value) for key, value in state.items())


def test_buffers_of_a_loss_are_left_out_and_that_is_said(
    cli: Run, tmp_path: Path, write_checkpoint: Callable[..., Path], tiny_state: dict[str, Tensor]
) -> None:
    key = "head.loss_module.class_weight"
    ran = cli("fuse", write_checkpoint({**tiny_state, key: torch.ones(7)}), "-o", tmp_path / "deploy.pth")
    assert (ran.returncode, ran.stderr) == (
        0,
        f"note: left out, since only training uses it: {key}\n"
        f"Next: riformer-deploy inspect {tmp_path / 'deploy.pth'}\n",
    )
    assert key not in torch.load(tmp_path / "deploy.pth", weights_only=True)["state_dict"]


def test_an_existing_file_is_kept_unless_forced(cli: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    target = tmp_path / "deploy.pth"
    target.write_text("mine")
    ran = cli("fuse", tiny_checkpoint, "-o", target)
    assert (ran.returncode, ran.stdout) == (32, "")
    assert f"{target} exists already" in ran.stderr
    assert "--force" in ran.stderr
    assert target.read_text() == "mine"
    assert cli("fuse", tiny_checkpoint, "-o", target, "--force").returncode == 0
    assert load_checkpoint(target).form is Form.DEPLOY


def test_a_folder_is_never_replaced_by_a_file(cli: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "folder").mkdir()
    ran = cli("fuse", tiny_checkpoint, "-o", tmp_path / "folder", "--force")
    assert ran.returncode == 32
    assert (tmp_path / "folder").is_dir()


def test_a_missing_target_folder_exits_2_by_name(cli: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    ran = cli("fuse", tiny_checkpoint, "-o", tmp_path / "absent" / "deploy.pth")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"The folder {tmp_path / 'absent'} does not exist" in ran.stderr


def test_either_set_of_an_ema_checkpoint_can_be_taken_the_average_by_default(
    cli: Run, tmp_path: Path, ema_checkpoint: Path, tiny_checkpoint: Path, other_checkpoint: Path
) -> None:
    taken = {}
    for name, options in (
        ("default", ()),
        ("averaged", ("--weights", "averaged")),
        ("raw", ("--weights", "raw")),
        ("of average", (tiny_checkpoint,)),
        ("of raw", (other_checkpoint,)),
    ):
        source = () if name.startswith("of") else (ema_checkpoint,)
        assert cli("fuse", *source, *options, "-o", tmp_path / name).returncode == 0
        taken[name] = load_checkpoint(tmp_path / name).weights_sha256
    assert taken["default"] == taken["averaged"] == taken["of average"]
    assert taken["raw"] == taken["of raw"] != taken["averaged"]


def test_an_unknown_set_of_weights_exits_2_with_the_choices(
    cli: Run, tmp_path: Path, ema_checkpoint: Path
) -> None:
    ran = cli("fuse", ema_checkpoint, "-o", tmp_path / "x.pth", "--weights", "ema")
    assert ran.returncode == 2
    assert "averaged" in ran.stderr
    assert "raw" in ran.stderr


@pytest.mark.parametrize("name", ["a [gpu] b.pth", "ünïcode.pth"])
def test_odd_names_of_files_are_printed_as_they_are(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, name: str
) -> None:
    ran = cli("fuse", tiny_checkpoint, "-o", tmp_path / name)
    assert ran.returncode == 0
    assert ran.stdout.startswith(f"{tmp_path / name}: deploy form, ")


def test_the_key_chooses_among_several_and_is_noted(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, other_checkpoint: Path
) -> None:
    states = {path.stem: load_checkpoint(path).state for path in (tiny_checkpoint, other_checkpoint)}
    torch.save(states, tmp_path / "two.pth")
    ran = cli("fuse", tmp_path / "two.pth", "--key", "other", "-o", tmp_path / "fused.pth")
    assert ran.returncode == 0
    assert "the weights were found under other" in ran.stderr
    assert cli("fuse", other_checkpoint, "-o", tmp_path / "same.pth").returncode == 0
    fused, same = (load_checkpoint(tmp_path / name).weights_sha256 for name in ("fused.pth", "same.pth"))
    assert fused == same


def test_a_url_is_no_path_and_only_https_is_fetched(cli: Run, tmp_path: Path) -> None:
    ran = cli("fuse", "http://example.org/model.pth", "-o", tmp_path / "fused.pth")
    assert ran.returncode == 2
    assert "http://example.org/model.pth cannot be fetched: the https address" in ran.stderr
