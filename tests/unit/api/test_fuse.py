from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.api.fuse import fuse_checkpoint
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    BundleConflictError,
    CheckpointError,
    OptionError,
    RIFormerDeployError,
)
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fuse

Write = Callable[..., Path]
State = dict[str, Tensor]


def test_the_fused_checkpoint_loads_strictly_into_a_deploy_model(
    tmp_path: Path, tiny_checkpoint: Path, tiny_architecture: Architecture, tiny_model: RIFormer
) -> None:
    report = fuse_checkpoint(tiny_checkpoint, tmp_path / "deploy.pth")
    stored = torch.load(tmp_path / "deploy.pth", weights_only=True)
    model = RIFormer(tiny_architecture, Form.DEPLOY).eval()
    model.load_state_dict(stored["state_dict"], strict=True)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        torch.testing.assert_close(model(images), fuse(tiny_model)(images), rtol=0, atol=0)
        torch.testing.assert_close(model(images), tiny_model(images), rtol=1e-4, atol=1e-5)
    assert report.sha256 == sha256_of(tmp_path / "deploy.pth")
    assert report.source_form is Form.TRAINING
    assert report.parameters == sum(value.numel() for value in stored["state_dict"].values())


def test_a_training_checkpoint_as_mmengine_wrote_it_is_fused_and_keeps_its_meta(
    tmp_path: Path, digits_checkpoint: Path
) -> None:
    fuse_checkpoint(digits_checkpoint, tmp_path / "deploy.pth")
    stored = torch.load(tmp_path / "deploy.pth", weights_only=True)
    assert stored.keys() == {"meta", "state_dict"}
    source = load_checkpoint(digits_checkpoint)
    written = stored["meta"].pop("riformer_deploy")
    assert written.keys() == {"version", "source_sha256", "weights", "form", "mean", "std"}
    assert (written["source_sha256"], written["form"]) == (source.sha256, "deploy")
    assert stored["meta"] == source.meta


def test_meta_of_the_fused_checkpoint_is_plain_data(tmp_path: Path, write_checkpoint: Write) -> None:
    meta = {"epoch": 3, "args": argparse.Namespace(lr=1), "scores": [np.float64(1), 2.5], "cfg": "x = 1\n"}
    fuse_checkpoint(write_checkpoint(meta=meta), tmp_path / "deploy.pth")
    stored = torch.load(tmp_path / "deploy.pth", weights_only=True)["meta"]
    del stored["riformer_deploy"]
    assert stored == {"epoch": 3, "scores": [2.5], "cfg": "x = 1\n"}


def test_a_deploy_form_checkpoint_is_passed_on_as_it_is(
    tmp_path: Path, write_checkpoint: Write, tiny_model: RIFormer
) -> None:
    state = fuse(tiny_model).state_dict()
    report = fuse_checkpoint(write_checkpoint(state, prefix="module."), tmp_path / "deploy.pth")
    assert report.source_form is Form.DEPLOY
    stored = torch.load(tmp_path / "deploy.pth", weights_only=True)["state_dict"]
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[key], state[key]) for key in state)


@pytest.mark.parametrize(("weights", "seed"), [(None, 0), (WeightSet.AVERAGED, 0), (WeightSet.RAW, 5)])
def test_the_set_of_weights_that_was_asked_for_is_fused(
    tmp_path: Path,
    write_checkpoint: Write,
    tiny_architecture: Architecture,
    filled: Callable[..., State],
    weights: WeightSet | None,
    seed: int,
) -> None:
    raw = {f"module.{key}": value for key, value in filled(tiny_architecture, seed=5).items()}
    fuse_checkpoint(write_checkpoint(ema_state_dict=raw), tmp_path / "deploy.pth", weights=weights)
    stored = torch.load(tmp_path / "deploy.pth", weights_only=True)
    expected = filled(tiny_architecture, seed=seed)["head.fc.weight"]
    assert torch.equal(stored["state_dict"]["head.fc.weight"], expected)
    assert stored["meta"]["riformer_deploy"]["weights"] == str(weights or WeightSet.AVERAGED)


def test_normalisation_stored_with_the_weights_is_not_lost(
    tmp_path: Path, write_checkpoint: Write, tiny_state: State
) -> None:
    tiny_state["data_preprocessor.mean"] = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    tiny_state["data_preprocessor.std"] = torch.tensor([4.0, 5.0, 6.0]).reshape(3, 1, 1)
    fuse_checkpoint(write_checkpoint(), tmp_path / "deploy.pth")
    found = load_checkpoint(tmp_path / "deploy.pth")
    assert (found.mean, found.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path, tiny_checkpoint: Path) -> None:
    output = tmp_path / "deploy.pth"
    output.write_text("precious")
    with pytest.raises(BundleConflictError, match="exists already"):
        fuse_checkpoint(tiny_checkpoint, output)
    assert output.read_text() == "precious"
    fuse_checkpoint(tiny_checkpoint, output, force=True)
    assert load_checkpoint(output).form is Form.DEPLOY
    assert list(tmp_path.iterdir()) == [output]


def test_a_folder_is_not_replaced_even_by_force(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleConflictError):
        fuse_checkpoint(tiny_checkpoint, tmp_path / "out", force=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_does_not_exist_is_an_option_error(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="does not exist"):
        fuse_checkpoint(tiny_checkpoint, tmp_path / "no" / "deploy.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_weights_whose_fusion_overflows_float32_are_refused_and_nothing_is_written(
    tmp_path: Path, write_checkpoint: Write, tiny_state: State, *, existing: bool
) -> None:
    tiny_state["backbone.network.0.0.norm1.weight"][0] = 1e30
    tiny_state["backbone.network.0.0.token_mixer.affine.weight"][0] = 1e30
    checkpoint, output = write_checkpoint(), tmp_path / "deploy.pth"
    if existing:
        output.write_text("precious")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RIFormerDeployError):
        fuse_checkpoint(checkpoint, output, force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"\x80")
    with pytest.raises(CheckpointError):
        fuse_checkpoint(tmp_path / "bad.pth", tmp_path / "deploy.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("link", [False, True], ids=["itself", "a link to it"])
def test_a_checkpoint_is_never_fused_onto_itself(
    tmp_path: Path, write_checkpoint: Write, *, force: bool, link: bool
) -> None:
    checkpoint = write_checkpoint()
    output = tmp_path / "link.pth" if link else checkpoint
    if link:
        output.symlink_to(checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(OptionError, match="is the checkpoint itself"):
        fuse_checkpoint(checkpoint, str(output), force=force)
    assert checkpoint.read_bytes() == before


def test_what_cannot_be_read_back_is_not_put_in_place(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy.pth").write_text("precious")

    def save(_content: object, file: IO[bytes]) -> None:
        file.write(b"half")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(CheckpointError):
        fuse_checkpoint(tiny_checkpoint, tmp_path / "deploy.pth", force=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"deploy.pth": "precious"}
