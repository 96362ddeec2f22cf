"""Files as people really have and report them, one of each kind, at the command line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.model.architecture import Form
from tests.safetensors_files import write_safetensors

Run = Callable[..., CompletedProcess[str]]
State = dict[str, Tensor]
CONFIG = """
model = dict(type='ImageClassifier', backbone=dict(type='RIFormer',
    arch=dict(layers=[1, 1, 2, 1], embed_dims=[8, 16, 24, 32], mlp_ratios=[2, 1.5, 1.334, 1.5])),
    neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=7, in_channels=32))
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64), dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def _plain(state: State, **meta: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "meta": {"cfg": CONFIG, **meta}}, buffer)
    return buffer.getvalue()


def _config(change: Callable[[str], str]) -> Callable[[Path, State], object]:
    return lambda path, state: path.write_bytes(_plain(state, cfg=change(CONFIG)))


def _setting(text: str) -> Callable[[Path, State], object]:
    return _config(lambda config: config.replace("type='RIFormer',", f"type='RIFormer', {text},"))


def _saved(content: Callable[[State], object]) -> Callable[[Path, State], object]:
    return lambda path, state: torch.save(content(state), path)


def _archive(path: Path, state: State) -> None:
    with tarfile.open(path, "w:gz") as archive:
        content = _plain(state)
        entry = tarfile.TarInfo("run/epoch_12.pth")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def _optimizer(state: State) -> dict[str, Any]:
    return {"state_dict": state, "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])}


def _one_channel(state: State) -> dict[str, Any]:
    key = "backbone.patch_embed.proj.weight"
    return {"state_dict": {**state, key: state[key][:, :1].clone()}}


SCOPED = "type='mmpretrain."
READ: dict[str, tuple[str, Callable[[Path, State], object], str]] = {
    "stored config": ("a.pth", _config(str), ""),
    "scoped pipeline": (
        "a.pth",
        _config(lambda c: c.replace("type='Res", f"{SCOPED}Res").replace("type='Cen", f"{SCOPED}Cen")),
        "",
    ),
    "average beside raw": (
        "a.pth.tar",
        _saved(lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s}),
        "the averaged ones are taken, from state_dict_ema (--weights raw takes the others)",
    ),
    "safetensors": ("a.safetensors", write_safetensors, ""),
    "wrapped": ("a.pth", _saved(lambda s: {"net": s}), "the weights were found under net"),
    "prefix": (
        "a.pth",
        _saved(lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}}),
        "the weights were found under state_dict.model",
    ),
    "optimizer": ("a.pth", _saved(_optimizer), ""),
}
REFUSED: dict[str, tuple[str, Callable[[Path, State], object], int, str]] = {
    "activation": ("a.pth", _setting("act_cfg=dict(type='ReLU')"), 15, "backbone.act_cfg.type is 'ReLU'"),
    "eps": (
        "a.pth",
        _setting("norm_cfg=dict(type='GN', num_groups=1, eps=0.1)"),
        15,
        "backbone.norm_cfg.eps is 0.1",
    ),
    "archive": ("a.tar.gz", _archive, 10, "an archive (gzip) around run/epoch_12.pth"),
    "one channel": ("a.pth", _saved(_one_channel), 12, "takes 1-channel pictures; only RGB"),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("kind", READ)
@pytest.mark.untraced
def test_what_holds_exactly_one_riformer_is_read_with_a_note_of_where_it_was(
    cli: Run, tmp_path: Path, tiny_state: State, kind: str
) -> None:
    name, write, note = READ[kind]
    write(tmp_path / name, tiny_state)
    ran = cli("fuse", tmp_path / name, "-o", tmp_path / "deploy.pth")
    assert ran.returncode == 0, ran.stderr
    assert note in ran.stderr
    torch.save({"state_dict": tiny_state}, tmp_path / "plain.pth")
    assert cli("fuse", tmp_path / "plain.pth", "-o", tmp_path / "expected.pth").returncode == 0
    found, expected = (load_checkpoint(tmp_path / name) for name in ("deploy.pth", "expected.pth"))
    assert found.form is Form.DEPLOY
    assert found.weights_sha256 == expected.weights_sha256
    said = json.loads(cli("inspect", tmp_path / name, "--json").stdout)
    size = [64, 64] if kind in ("stored config", "scoped pipeline") else None
    assert (said["preprocessing"] and said["preprocessing"]["crop_px"]) == size


@pytest.mark.parametrize("kind", REFUSED)
def test_what_computes_something_else_or_is_no_checkpoint_is_named(
    cli: Run, tmp_path: Path, tiny_state: State, kind: str
) -> None:
    name, write, code, said = REFUSED[kind]
    write(tmp_path / name, tiny_state)
    ran = cli("fuse", tmp_path / name, "-o", tmp_path / "deploy.pth")
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert not (tmp_path / "deploy.pth").exists()


def test_a_picture_with_megabytes_of_text_gets_its_classes(
    cli: Run, tiny_bundle: Path, repository: Path
) -> None:
    picture = repository / "tests" / "data" / "png-large-text.png"
    ran = cli("predict", picture, "--bundle", tiny_bundle, "--json")
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["predictions"]) == 1
