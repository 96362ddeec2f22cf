from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riformer_deploy.api.get_model import get_model
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import CheckpointMismatchError, CheckpointUnreadableError, OptionError
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.variants import VARIANTS


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
    path = write_checkpoint(ema_state_dict=filled(tiny_architecture, seed=1))
    model = get_model(tiny_architecture, path, weights=weights)
    assert torch.equal(model.head.fc.weight, filled(tiny_architecture, seed=seed)["head.fc.weight"])
