from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from riformer_deploy.api.checkpoint_accuracy import CheckpointAccuracyOptions, evaluate_checkpoint
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import fit, normalize
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.variants import VARIANTS


@pytest.fixture
def data(tmp_path: Path, tiny_architecture: Architecture) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (21, 50, 52, 3), dtype=np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, images=pixels, labels=np.arange(21) % tiny_architecture.num_classes)
    return path


def test_both_forms_are_as_often_right_as_the_model_that_the_config_describes(
    data: Path, tiny_checkpoint: Path, tiny_config: Path, tiny_model: RIFormer
) -> None:
    (data.parent / "model").mkdir()
    checkpoint = Path(shutil.copy(tiny_checkpoint, data.parent / "model" / "tiny.pth"))
    preprocessing = Preprocessing(resize_short_edge_px=None, crop_px=(48, 48))
    with np.load(data) as stored:
        images = normalize([fit(picture, preprocessing) for picture in stored["images"]], preprocessing)
        right = int((tiny_model(torch.from_numpy(images)).argmax(1).numpy() == stored["labels"]).sum())
    for config, form in ((tiny_config, "training"), (tiny_config.with_name("tiny-deploy.py"), "deploy")):
        options = CheckpointAccuracyOptions(
            checkpoint=checkpoint, config=config, data=data, batch=8, workers=1
        )
        result = evaluate_checkpoint(options)
        (model,) = result.artifacts
        assert (model.name, model.images, model.top1.right) == (f"PyTorch, {form} form", 21, right)
        assert result.preprocessing.crop_px == (48, 48)
        assert result.published is None
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["tiny.pth"]  # no log is left


def test_an_accuracy_far_below_the_published_one_is_warned_of(
    data: Path,
    tiny_checkpoint: Path,
    tiny_config: Path,
    tiny_architecture: Architecture,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    published = dataclasses.replace(
        VARIANTS["riformer-s12_in1k"], name="tiny", architecture=tiny_architecture, image_size_px=48
    )
    monkeypatch.setitem(VARIANTS, "tiny", published)
    options = CheckpointAccuracyOptions(checkpoint=tiny_checkpoint, config=tiny_config, data=data, workers=1)
    result = evaluate_checkpoint(options)
    assert result.published is not None
    assert result.published.variant == "tiny"
    assert "far below the 76.90 % that was published of tiny" in caplog.text


def test_without_a_config_something_else_must_say_the_size(data: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="image size"):
        evaluate_checkpoint(CheckpointAccuracyOptions(checkpoint=tiny_checkpoint, data=data))
    with pytest.raises(OptionError, match="--limit"):
        CheckpointAccuracyOptions(checkpoint=tiny_checkpoint, limit=0)
