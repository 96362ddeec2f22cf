from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.network import empty_model
from riformer_deploy.model.variants import VARIANTS, Variant


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_the_deploy_form_weighs_and_costs_what_the_published_table_says(variant: Variant) -> None:
    found = complexity(variant.architecture, Form.DEPLOY, (variant.image_size_px,) * 2)
    assert round(found.parameters / 1e3) == round(variant.published_params_m * 1e3)
    decimals = 2 if variant.name == "riformer-m48_in1k-384" else 3  # the table says 34.06 there
    assert found.flops // 10 ** (9 - decimals) == round(variant.published_flops_g * 10**decimals)
    assert found.image_size_px == (variant.image_size_px,) * 2


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_parameters_of_both_forms_are_mmpretrains(variant: Variant, repository: Path) -> None:
    stored = json.loads((repository / "tests" / "data" / "variants.json").read_text(encoding="utf-8"))
    expected = stored[variant.config]
    for form, name in ((Form.TRAINING, "params_training"), (Form.DEPLOY, "params_deploy")):
        assert complexity(variant.architecture, form, (32, 32)).parameters == expected[name]


def test_the_count_can_be_followed_by_hand() -> None:
    dims = (2, 4, 2, 4)
    small = Architecture(layers=(1,) * 4, embed_dims=dims, hidden_dims=(1,) * 4, num_classes=3)
    pixels = (4, 1, 1, 1)  # of a 7x7 image after each stage: the stem gives (7 + 4 - 7) // 4 + 1 = 2
    values = [dim * count for dim, count in zip(dims, pixels, strict=True)]
    stem, down = 4 * 49 * 3 * 2, 9 * (2 * 4 + 4 * 2 + 2 * 4)
    mlps, norms = 2 * sum(values), 5 * (2 * sum(values) + 4)
    pool, head = 4, 4 * 3
    assert complexity(small, Form.DEPLOY, (7, 7)).flops == stem + down + mlps + norms + pool + head


def test_folding_takes_parameters_away_and_no_norm(tiny_architecture: Architecture) -> None:
    training, deploy, folded = (complexity(tiny_architecture, form, (48, 64)) for form in Form)
    assert training.parameters > deploy.parameters > folded.parameters
    assert deploy.flops == folded.flops < training.flops


@pytest.mark.parametrize("size", [(48, 64), (37, 101)])
@pytest.mark.parametrize("form", list(Form))
def test_the_count_is_what_pytorch_counts_while_it_runs_the_module(
    tiny_architecture: Architecture, form: Form, size: tuple[int, int]
) -> None:
    model = empty_model(tiny_architecture, form)
    aten = torch.ops.aten
    # PyTorch counts two per multiply-add, and gives norms and pooling no cost of their own.
    per_value = {
        aten.native_group_norm: lambda shape, *_, **__: 2 * 5 * shape.numel(),
        aten.mean: lambda shape, *_, **__: 2 * shape.numel(),
    }
    with FlopCounterMode(display=False, custom_mapping=per_value) as counter, torch.inference_mode():
        model(torch.empty(1, 3, *size, device="meta"))
    found = complexity(tiny_architecture, form, size)
    assert 2 * found.flops == counter.get_total_flops()
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
