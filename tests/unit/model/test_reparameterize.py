from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold, fuse

State = dict[str, Tensor]
Change = Callable[[RIFormer], RIFormer]


def _wide(architecture: Architecture, state: State, form: Form = Form.TRAINING) -> RIFormer:
    return model_from_state(architecture, form, {key: value.double() for key, value in state.items()})


def _images(side: int, count: int = 4) -> Tensor:
    shape = (count, 3, side, side)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def _extreme(state: State, gain: float, shift: float) -> State:
    """Layer scales, norms and affines far from one, some of them negative and some zero."""
    changed = {}
    for key, value in state.items():
        extreme = value.double()
        if "layer_scale" in key:
            extreme = extreme * torch.where(torch.arange(len(value)) % 2 == 0, 1 / gain, -gain)
        elif "norm" in key and key.endswith("weight"):
            extreme = extreme * torch.where(torch.arange(len(value)) % 3 == 0, 0.0, gain)
        elif "affine.weight" in key:
            extreme = 1 + (extreme - 1) * gain
        elif key.endswith("bias"):
            extreme = extreme * shift
        changed[key] = extreme
    return changed


@pytest.mark.parametrize(
    "change", [fuse, fold, lambda model: fold(fuse(model))], ids=["fuse", "fold", "both"]
)
@pytest.mark.parametrize(
    "scale", [None, (1e-3, 1.0), (1e3, 1e2), (1e4, 1e-4)], ids=["as is", "small", "large", "apart"]
)
def test_the_tiny_models_function_stays_in_float64(
    tiny_architecture: Architecture,
    tiny_state: State,
    change: Change,
    scale: tuple[float, float] | None,
) -> None:
    model = _wide(tiny_architecture, _extreme(tiny_state, *scale) if scale else tiny_state)
    expected = model(_images(48))
    torch.testing.assert_close(
        change(model)(_images(48)), expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max())
    )


@pytest.mark.parametrize("change", [fuse, fold], ids=["fuse", "fold"])
def test_the_trained_models_function_stays_in_float64(digits_checkpoint: Path, change: Change) -> None:
    loaded = load_checkpoint(digits_checkpoint)
    model = _wide(loaded.architecture, loaded.state)
    torch.testing.assert_close(change(model)(_images(64, 2)), model(_images(64, 2)), rtol=1e-12, atol=1e-12)


@pytest.mark.untraced
def test_a_change_of_any_tensor_is_a_change_of_the_folded_model(
    tiny_architecture: Architecture, tiny_state: State
) -> None:
    expected = fold(_wide(tiny_architecture, tiny_state))(_images(24, 1))
    for key, value in tiny_state.items():
        changed = value.clone()
        changed.reshape(-1)[::2] += 1e-3
        found = fold(_wide(tiny_architecture, {**tiny_state, key: changed}))(_images(24, 1))
        assert not torch.allclose(found, expected, rtol=1e-9, atol=1e-9), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", [fuse, fold], ids=["fuse", "fold"])
def test_the_model_that_was_given_stays_as_it_was(
    tiny_model: RIFormer, change: Change, dtype: torch.dtype
) -> None:
    model = tiny_model.to(dtype)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed = change(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.fill_(7)
    assert model.form is Form.TRAINING
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("source", "change", "form"),
    [
        (Form.TRAINING, fuse, Form.DEPLOY),
        (Form.DEPLOY, fuse, Form.DEPLOY),
        (Form.TRAINING, fold, Form.FOLDED),
        (Form.DEPLOY, fold, Form.FOLDED),
        (Form.FOLDED, fold, Form.FOLDED),
    ],
)
def test_the_result_has_the_keys_shapes_and_type_of_its_form(
    tiny_architecture: Architecture, filled: Callable[..., State], source: Form, change: Change, form: Form
) -> None:
    model = model_from_state(tiny_architecture, source, filled(tiny_architecture, source))
    changed = change(model)
    assert changed.form is form
    assert not changed.training
    state = changed.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == tiny_architecture.shapes(form)
    assert {value.dtype for value in state.values()} == {torch.float32}
    if source is form:
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_a_folded_model_cannot_be_turned_back(tiny_model: RIFormer) -> None:
    with pytest.raises(OptionError, match="folded"):
        fuse(fold(tiny_model))


def test_fused_norms_are_what_mmpretrains_formula_says(tiny_model: RIFormer, tiny_state: State) -> None:
    name = "backbone.network.4.1"
    weight = tiny_state[f"{name}.token_mixer.affine.weight"].double().flatten()
    bias = tiny_state[f"{name}.token_mixer.affine.bias"].double()
    norm_weight, norm_bias = (tiny_state[f"{name}.norm1.{part}"].double() for part in ("weight", "bias"))
    fused = fuse(tiny_model).state_dict()
    assert torch.equal(fused[f"{name}.norm_reparam.weight"], ((weight - 1) * norm_weight).float())
    assert torch.equal(fused[f"{name}.norm_reparam.bias"], ((weight - 1) * norm_bias + bias).float())


def test_folding_rounds_once_whether_or_not_it_was_fused_in_float64_first(tiny_model: RIFormer) -> None:
    direct = fold(tiny_model).state_dict()
    wide = fold(fuse(tiny_model.double())).float().state_dict()
    assert all(torch.equal(direct[key], wide[key]) for key in direct)
