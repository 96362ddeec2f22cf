from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riformer_deploy.api.models import ModelTable, get_model, published_models
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import CheckpointMismatchError, CheckpointUnreadableError, OptionError
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.variants import VARIANTS


@pytest.fixture(scope="module")
def table() -> ModelTable:
    return published_models()


def test_the_table_has_the_ten_published_models_in_order(table: ModelTable) -> None:
    assert [row.name for row in table.models] == list(VARIANTS)
    assert len(table.models) == 10
    assert load_json(ModelTable, dump_json(table)) == table


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_computed_agrees_with_what_was_published(table: ModelTable, name: str) -> None:
    (row,) = [row for row in table.models if row.name == name]
    variant = VARIANTS[name]
    assert row.parameters / 1e6 == pytest.approx(variant.published_params_m, abs=0.00051)
    # the published figures are cut after three digits, not rounded
    assert row.flops / 1e9 == pytest.approx(variant.published_flops_g, rel=5e-4)
    assert (row.image_size_px, row.resize_short_edge_px) == (
        variant.image_size_px,
        variant.resize_short_edge_px,
    )
    assert (row.top1_percent, row.top5_percent) == (variant.top1_percent, variant.top5_percent)
    assert row.file_name == variant.file_name


def test_a_model_by_name_is_in_training_form_in_evaluation_mode() -> None:
    model = get_model("riformer-s12_in1k", num_classes=3)
    assert (model.form, model.training) == (Form.TRAINING, False)
    assert model.architecture == dataclasses.replace(
        VARIANTS["riformer-s12_in1k"].architecture, num_classes=3
    )
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_model_of_an_architecture_of_one_s_own(tiny_architecture: Architecture) -> None:
    model = get_model(tiny_architecture)
    assert isinstance(model, RIFormer)
    assert model.architecture == tiny_architecture
    assert get_model(tiny_architecture, num_classes=11).head.fc.out_features == 11


def test_a_checkpoint_s_weights_are_the_model_s(
    tiny_architecture: Architecture, tiny_checkpoint: Path, tiny_model: RIFormer
) -> None:
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    for path in (tiny_checkpoint, str(tiny_checkpoint)):
        model = get_model(tiny_architecture, path)
        assert not model.training
        torch.testing.assert_close(model(images), tiny_model(images), rtol=0, atol=0)


def test_the_form_is_the_checkpoint_s(
    write_checkpoint: Callable[..., Path],
    filled: Callable[..., dict[str, Tensor]],
    tiny_architecture: Architecture,
) -> None:
    path = write_checkpoint(filled(tiny_architecture, Form.DEPLOY))
    assert get_model(tiny_architecture, path).form is Form.DEPLOY


def test_another_model_s_checkpoint_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointMismatchError, match="layers") as caught:
        get_model("riformer-s12_in1k", tiny_checkpoint)
    assert "classes: 7, but 1000 were asked for" in caught.value.details


def test_the_class_count_asked_for_must_be_the_checkpoint_s(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    assert get_model(tiny_architecture, tiny_checkpoint, num_classes=7).architecture.num_classes == 7
    with pytest.raises(CheckpointMismatchError, match="classes: 7, but 8 were asked for"):
        get_model(tiny_architecture, tiny_checkpoint, num_classes=8)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="riformer-s13_in1k") as caught:
        get_model("riformer-s13_in1k")
    assert "riformer-m48_in1k-384" in str(caught.value)


def test_a_missing_checkpoint_is_an_error_and_no_initial_weights(
    tmp_path: Path, tiny_architecture: Architecture
) -> None:
    with pytest.raises(CheckpointUnreadableError):
        get_model(tiny_architecture, tmp_path / "absent.pth")


def test_models_are_trainable_whether_or_not_they_were_loaded(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    for model in (get_model(tiny_architecture), get_model(tiny_architecture, tiny_checkpoint)):
        model(torch.ones(1, 3, 32, 32)).sum().backward()
        assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize(("weights", "seed"), [("averaged", 0), ("raw", 1), (WeightSet.RAW, 1)])
def test_the_weights_asked_for_are_the_model_s(
    write_checkpoint: Callable[..., Path],
    filled: Callable[..., dict[str, Tensor]],
    tiny_architecture: Architecture,
    weights: WeightSet | str,
    seed: int,
) -> None:
    raw = {f"module.{key}": value for key, value in filled(tiny_architecture, seed=1).items()}
    path = write_checkpoint(ema_state_dict={**raw, "steps": torch.tensor(7)})  # as mmengine's EMAHook saves
    model = get_model(tiny_architecture, path, weights=weights)
    assert torch.equal(model.head.fc.weight, filled(tiny_architecture, seed=seed)["head.fc.weight"])
