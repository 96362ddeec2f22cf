from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.api.reproduce import ReproduceOptions, reproduce_table
from riformer_deploy.common.errors import CheckpointMismatchError, OptionError
from riformer_deploy.data.transforms import fit, normalize
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.variants import VARIANTS, Variant


def published(
    folder: Path, name: str, architecture: Architecture, state: dict[str, Tensor], side: int
) -> Variant:
    """A published model of the tests' own, its file in place under a name that begins its hash."""
    path = folder / "file.pth"
    torch.save({"state_dict": state}, path)
    prefix = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    variant = dataclasses.replace(
        VARIANTS["riformer-s12_in1k"],
        name=name,
        architecture=architecture,
        image_size_px=side,
        resize_short_edge_px=side + 4,
        file_name=f"{name}-{prefix}.pth",
    )
    path.rename(folder / variant.file_name)
    return variant


@pytest.fixture
def data(tmp_path: Path, tiny_architecture: Architecture) -> Path:
    rng = np.random.Generator(np.random.PCG64(0))
    pixels = rng.integers(0, 256, (21, 40, 50, 3), dtype=np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, images=pixels, labels=np.arange(21) % tiny_architecture.num_classes)
    return path


def test_models_are_measured_in_both_forms_beside_what_was_published(
    tmp_path: Path,
    data: Path,
    tiny_architecture: Architecture,
    filled: Callable[..., dict[str, Tensor]],
) -> None:
    variants = tuple(
        published(tmp_path, f"tiny-{seed}", tiny_architecture, filled(tiny_architecture, seed=seed), side)
        for seed, side in ((0, 32), (1, 32), (2, 48))
    )
    steps: list[str] = []
    options = ReproduceOptions(variants=variants, data=data, checkpoints=tmp_path, batch=8, workers=1)
    found = reproduce_table(options, steps.append)
    assert [(row.variant, row.form) for row in found.models] == [
        (f"tiny-{seed}", form) for seed in range(3) for form in (Form.TRAINING, Form.DEPLOY)
    ]
    assert "measuring tiny-0, tiny-1" in steps  # same preprocessing, one pass
    with np.load(data) as stored:
        pixels, labels = stored["images"], stored["labels"]
    for row in found.models:
        variant = next(item for item in variants if item.name == row.variant)
        model = model_from_state(
            tiny_architecture, Form.TRAINING, filled(tiny_architecture, seed=int(row.variant[-1]))
        )
        pictures = [fit(picture, variant.preprocessing) for picture in pixels]
        with torch.inference_mode():
            scores = model(torch.from_numpy(normalize(pictures, variant.preprocessing))).numpy()
        assert row.top1.right == int((scores.argmax(axis=1) == labels).sum())
        cost = complexity(tiny_architecture, row.form, variant.preprocessing.crop_px)
        assert (row.parameters, row.flops, row.images) == (cost.parameters, cost.flops, 21)
        assert row.published_top1_percent == 76.90
    assert found.models[0].parameters > found.models[1].parameters
    assert found.dataset.total == 21


def test_a_file_of_another_shape_is_refused(
    tmp_path: Path, data: Path, tiny_architecture: Architecture, filled: Callable[..., dict[str, Tensor]]
) -> None:
    variant = published(tmp_path, "tiny", tiny_architecture, filled(tiny_architecture), 32)
    other = dataclasses.replace(tiny_architecture, layers=(1, 1, 1, 1))
    options = ReproduceOptions(
        variants=(dataclasses.replace(variant, architecture=other),), data=data, checkpoints=tmp_path
    )
    with pytest.raises(CheckpointMismatchError, match="not what was asked for"):
        reproduce_table(options, lambda _step: None)


def test_something_is_to_be_measured(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No model"):
        ReproduceOptions(variants=(), data=tmp_path, checkpoints=tmp_path)
    with pytest.raises(OptionError, match="--limit"):
        ReproduceOptions(variants=tuple(VARIANTS.values()), data=tmp_path, checkpoints=tmp_path, limit=0)
