"""Exact re-parameterisations: the affine branch into its norm, then everything else that folds.

All arithmetic is float64 on the state dict; a chain of foldings is rounded once, at its end.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.blocks import fuse_affine
from riformer_deploy.model.network import RIFormer, model_from_state

State = dict[str, Tensor]


def _blocks(architecture: Architecture) -> Iterator[str]:
    for stage in architecture.block_names:
        yield from stage


def _fuse_affine(state: State, architecture: Architecture) -> None:
    """With ``y = norm1(x)``, ``affine(y) - y = (w - 1) * y + c``: a norm again."""
    for name in _blocks(architecture):
        weight, bias = fuse_affine(
            state.pop(f"{name}.norm1.weight"),
            state.pop(f"{name}.norm1.bias"),
            state.pop(f"{name}.token_mixer.affine.weight"),
            state.pop(f"{name}.token_mixer.affine.bias"),
        )
        state |= {f"{name}.norm_reparam.weight": weight, f"{name}.norm_reparam.bias": bias}


def _fold_scales(state: State, architecture: Architecture) -> None:
    """``layer_scale_1`` into ``norm_reparam``, ``layer_scale_2`` into ``fc2``."""
    for name in _blocks(architecture):
        scale1 = state.pop(f"{name}.layer_scale_1")
        state[f"{name}.norm_reparam.weight"] = state[f"{name}.norm_reparam.weight"] * scale1
        state[f"{name}.norm_reparam.bias"] = state[f"{name}.norm_reparam.bias"] * scale1
        scale2 = state.pop(f"{name}.layer_scale_2")
        state[f"{name}.mlp.fc2.weight"] = state[f"{name}.mlp.fc2.weight"] * scale2[:, None, None, None]
        state[f"{name}.mlp.fc2.bias"] = state[f"{name}.mlp.fc2.bias"] * scale2


def _fold_norm2(state: State, architecture: Architecture) -> None:
    """``W (g * n + b) + c = (W g) n + (W b + c)``: norm2's weight and bias into ``fc1``."""
    for name in _blocks(architecture):
        gain, shift = state.pop(f"{name}.norm2.weight"), state.pop(f"{name}.norm2.bias")
        weight = state[f"{name}.mlp.fc1.weight"]
        state[f"{name}.mlp.fc1.bias"] = state[f"{name}.mlp.fc1.bias"] + weight[:, :, 0, 0] @ shift
        state[f"{name}.mlp.fc1.weight"] = weight * gain[None, :, None, None]


def _wide(model: RIFormer) -> State:
    return {key: value.detach().to(torch.float64, copy=True) for key, value in model.state_dict().items()}


def _rebuilt(model: RIFormer, form: Form, state: State) -> RIFormer:
    like = next(model.parameters())
    narrow = {key: value.to(like.dtype).contiguous() for key, value in state.items()}
    return model_from_state(
        model.architecture,
        form,
        narrow,
        out_indices=model.backbone.out_indices,
        preprocessing=model.preprocessing,
        class_names=model.class_names,
    ).to(like.device)


def fuse(model: RIFormer) -> RIFormer:
    """The deploy form of ``model``, as mmpretrain's ``switch_to_deploy`` makes it.

    Formula: ``RIFormerBlock.fuse_affine`` in mmpretrain 1.2.0.

    Args:
        model: In training form (fused) or in deploy form (copied).

    Returns:
        A new model of the same dtype, in evaluation mode; ``model`` stays as it was.

    Raises:
        OptionError: ``model`` is in folded form, which cannot be undone.
    """
    if model.form is Form.FOLDED:
        raise OptionError("A folded model cannot be turned back into the deploy form.")
    state = _wide(model)
    if model.form is Form.TRAINING:
        _fuse_affine(state, model.architecture)
    return _rebuilt(model, Form.DEPLOY, state)


def fold(model: RIFormer) -> RIFormer:
    """The folded form of ``model``: no layer scales, no affine part in ``norm2``.

    Args:
        model: In training or deploy form (folded) or in folded form (copied).

    Returns:
        A new model of the same dtype, in evaluation mode; ``model`` stays as it was.
    """
    state = _wide(model)
    if model.form is Form.TRAINING:
        _fuse_affine(state, model.architecture)
    if model.form is not Form.FOLDED:
        _fold_scales(state, model.architecture)
        _fold_norm2(state, model.architecture)
    return _rebuilt(model, Form.FOLDED, state)
