from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.config_files import ConfigFile, read_config
from riformer_deploy.checkpoints.load import Checkpoint, load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.errors import CheckpointMismatchError, OptionError
from riformer_deploy.model.architecture import Architecture, Form

CONFIG = """
data_preprocessor = dict(mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=48)]
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='RIFormer',
        arch=dict(layers=[1, 1, 2, 1], embed_dims=[8, 16, 24, 32], mlp_ratios=[2, 1.5, 1.3334, 1.5])),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=32))
"""
CLASSES = "test_dataloader = dict(dataset=dict(metainfo=dict(classes=[{names}])))\n"
NAMES = ", ".join(f"'class {index}'" for index in range(7))


def load_configured(path: Path, config: ConfigFile | Path | None) -> Checkpoint:
    return with_config(load_checkpoint(path), config)


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    """``config(text)``: a config file of it."""

    def write(text: str) -> Path:
        path = tmp_path / "config.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_what_the_file_does_not_say_is_taken_from_the_config(
    config: Callable[[str], Path], write_checkpoint: Callable[..., Path]
) -> None:
    bare = write_checkpoint()
    with pytest.raises(OptionError, match="image size"):
        resolve_preprocessing(load_checkpoint(bare), variant=None, image_size_px=None, notes=[])
    checkpoint = load_configured(bare, config(CONFIG + CLASSES.format(names=NAMES)))
    found = resolve_preprocessing(checkpoint, variant=None, image_size_px=None, notes=[])
    assert (found.crop_px, found.mean, found.source) == ((48, 48), (1, 2, 3), "checkpoint")
    assert checkpoint.class_names == tuple(f"class {index}" for index in range(7))
    assert load_configured(bare, None).class_names is None


def test_what_training_stored_stays_where_the_config_says_nothing(
    config: Callable[[str], Path], write_checkpoint: Callable[..., Path]
) -> None:
    stored = write_checkpoint(meta={"cfg": CONFIG})
    model_only = CONFIG[CONFIG.index("model =") :]
    checkpoint = load_configured(stored, read_config(config(model_only)))
    found = resolve_preprocessing(checkpoint, variant=None, image_size_px=None, notes=[])
    assert found.crop_px == (48, 48)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[1, 1, 2, 1]", "[1, 1, 3, 1]", "layers: the tensors say [1, 1, 2, 1], the config [1, 1, 3, 1]"),
        ("num_classes=7", "num_classes=8", "num_classes: the tensors say 7, the config 8"),
        ("arch=", "in_stride=2, arch=", "model.backbone.in_stride is 2; computed here: 4"),
        ("crop_size=48", "crop_size=40", "crop_px: the checkpoint stores (48, 48), the config says (40, 40)"),
        ("5., 6.]", "5., 7.]", "std: the checkpoint stores (4.0, 5.0, 6.0), the config says (4.0, 5.0, 7.0)"),
        ("to_rgb=True", "to_rgb=False", "channel_order: the checkpoint stores RGB, the config says BGR"),
        ("'class 3'", "'x'", "classes: number 3 is 'class 3' in the checkpoint and 'x' in the config"),
        (", 'class 6'", "", "classes: the config names 6, the checkpoint has 7"),
    ],
)  # fmt: skip
def test_what_the_two_say_differently_is_named(
    config: Callable[[str], Path], write_checkpoint: Callable[..., Path], old: str, new: str, problem: str
) -> None:
    text = CONFIG + CLASSES.format(names=NAMES)
    names = [f"class {index}" for index in range(7)]
    stored = write_checkpoint(meta={"cfg": CONFIG, "dataset_meta": {"classes": names}})
    assert load_configured(stored, config(text)).class_names == tuple(names)
    with pytest.raises(
        CheckpointMismatchError, match=r"tiny\.pth is not what .*config\.py describes"
    ) as caught:
        load_configured(stored, config(text.replace(old, new)))
    assert caught.value.details == (problem,)


def test_a_stored_normalisation_must_be_the_config_s(
    config: Callable[[str], Path], write_checkpoint: Callable[..., Path], tiny_state: dict[str, Tensor]
) -> None:
    meta = {"riformer_deploy": {"mean": [1, 2, 3], "std": [4, 5, 7]}}
    with pytest.raises(CheckpointMismatchError) as caught:
        load_configured(write_checkpoint(tiny_state, meta=meta), config(CONFIG))
    assert caught.value.details == (
        "data_preprocessor.std: the checkpoint stores (4.0, 5.0, 7.0), the config says (4.0, 5.0, 6.0)",
    )


def test_a_deploy_form_needs_a_deploy_config_and_a_training_form_takes_both(
    config: Callable[[str], Path],
    write_checkpoint: Callable[..., Path],
    filled: Callable[..., dict[str, Tensor]],
    tiny_architecture: Architecture,
) -> None:
    fused = write_checkpoint(filled(tiny_architecture, Form.DEPLOY), name="fused.pth")
    deploy = CONFIG.replace("arch=", "deploy=True, arch=")
    assert load_configured(fused, config(deploy)).form is Form.DEPLOY
    assert load_configured(write_checkpoint(), config(deploy)).form is Form.TRAINING
    with pytest.raises(CheckpointMismatchError, match=r"model\.backbone\.deploy"):
        load_configured(fused, config(CONFIG))


def test_a_config_without_a_model_is_refused(
    config: Callable[[str], Path], write_checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(OptionError, match="describes no model"):
        load_configured(write_checkpoint(), config("x = 1"))
