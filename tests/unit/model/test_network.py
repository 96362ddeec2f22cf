from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, empty_model, model_from_state
from riformer_deploy.model.reparameterize import fold, fuse
from riformer_deploy.model.variants import VARIANTS, Variant

State = dict[str, Tensor]


QUICK = {"riformer-s12_in1k", "riformer-s24_in1k-384", "riformer-m36_in1k"}
"""Both image sizes and both widths; the others are deeper or larger."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name, variant in VARIANTS.items()
    ],
)
def test_a_published_model_computes_what_mmpretrains_own_does(
    variant: Variant, golden: ModuleType, filled: Callable[..., State], repository: Path
) -> None:
    model = model_from_state(variant.architecture, Form.TRAINING, filled(variant.architecture))
    images = torch.from_numpy(golden.golden_input(variant.image_size_px))
    with np.load(repository / "tests" / "data" / "variants.npz") as stored, torch.inference_mode():
        expected = {
            name: stored[f"{variant.config}/{name}"] for name in ("logits", "logits_deploy", "features")
        }
        features = model.extract_feat(images)
        found = {
            "features": features[0],
            "logits": model.head(features),
            "logits_deploy": fuse(model)(images),
        }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.untraced
def test_keys_and_shapes_are_those_of_the_architecture(variant: Variant, form: Form) -> None:
    state = empty_model(variant.architecture, form).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == variant.architecture.shapes(form)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(
    ("size", "blocks"),
    [
        ((3, 3), [(1, 1), (1, 1), (1, 1), (1, 1)]),
        ((65, 33), [(16, 8), (8, 4), (4, 2), (2, 1)]),
        ((31, 90), [(8, 22), (4, 11), (2, 6), (1, 3)]),
    ],
    ids=str,
)
def test_odd_and_oblong_images_run(
    tiny_model: RIFormer, form: Form, size: tuple[int, int], blocks: list[tuple[int, int]]
) -> None:
    model = {Form.TRAINING: tiny_model, Form.DEPLOY: fuse(tiny_model), Form.FOLDED: fold(tiny_model)}[form]
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    sizes = []
    for stage in (0, 2, 4, 6):
        model.backbone.network[stage].register_forward_hook(
            lambda _module, _inputs, output: sizes.append(tuple(output.shape[2:]))
        )
    logits = model(x)
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert sizes == blocks
    torch.testing.assert_close(logits, tiny_model(x), rtol=1e-4, atol=1e-5)


def test_each_image_is_scored_on_its_own(tiny_model: RIFormer) -> None:
    x = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([tiny_model(image[None]) for image in x])
    torch.testing.assert_close(tiny_model(x), alone)
    assert not torch.allclose(alone[0], alone[1])


def test_a_model_takes_the_tensors_over_in_evaluation_mode(
    tiny_architecture: Architecture, tiny_state: State
) -> None:
    model = model_from_state(tiny_architecture, Form.TRAINING, tiny_state)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.head.fc.weight.data_ptr() == tiny_state["head.fc.weight"].data_ptr()


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_a_state_dict_that_does_not_fit_is_never_taken(
    tiny_architecture: Architecture, tiny_state: State, change: str
) -> None:
    if change == "missing":
        del tiny_state["backbone.network.4.1.norm1.weight"]
    elif change == "unexpected":
        tiny_state["backbone.network.4.1.norm_reparam.weight"] = torch.ones(24)
    else:
        tiny_state["backbone.network.4.1.norm1.weight"] = torch.ones(23)
    with pytest.raises(RuntimeError, match=r"backbone\.network\.4\.1\.norm"):
        model_from_state(tiny_architecture, Form.TRAINING, tiny_state)


def test_switching_to_deploy_form_changes_the_model_itself_once(tiny_model: RIFormer) -> None:
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(4))
    expected, fused = tiny_model(images), fuse(tiny_model)
    tiny_model.train().requires_grad_()
    scales = tiny_model.backbone.network[0][0].layer_scale_1  # type: ignore[index]  # a Sequential
    tiny_model.backbone.switch_to_deploy()
    assert (tiny_model.form, tiny_model.backbone.deploy) == (Form.DEPLOY, True)
    state = tiny_model.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == tiny_model.architecture.shapes(
        Form.DEPLOY
    )
    assert all(torch.equal(value, state[key]) for key, value in fused.state_dict().items())
    assert tiny_model.backbone.network[0][0].layer_scale_1 is scales  # type: ignore[index]  # a Sequential
    assert all(module.training for module in tiny_model.modules())
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())
    tiny_model.backbone.switch_to_deploy()
    assert all(value is tiny_model.get_parameter(key) for key, value in tiny_model.named_parameters())
    assert all(torch.equal(value, state[key]) for key, value in tiny_model.state_dict().items())
    torch.testing.assert_close(tiny_model(images), expected, rtol=1e-4, atol=1e-5)


def test_a_folded_model_cannot_be_switched_back(tiny_model: RIFormer) -> None:
    with pytest.raises(OptionError, match="folded"):
        fold(tiny_model).backbone.switch_to_deploy()


def test_features_are_tuples_as_in_mmpretrain(tiny_model: RIFormer) -> None:
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(5))
    (features,), (maps,) = tiny_model.extract_feat(images), tiny_model.extract_feat(images, "backbone")
    assert (features.shape, maps.shape) == ((2, 32), (2, 32, 2, 2))
    assert torch.equal(tiny_model.extract_feat(images, stage="pre_logits"), features)
    torch.testing.assert_close(maps.mean((2, 3)), features)
    assert torch.equal(tiny_model.head((features,)), tiny_model(images))
    with pytest.raises(OptionError, match="neither_here"):
        tiny_model.extract_feat(images, stage="neither_here")  # type: ignore[call-overload]  # refused


@pytest.mark.parametrize("change", [None, fuse, fold], ids=["training", "fuse", "fold"])
def test_each_map_goes_through_its_own_norm(
    tiny_architecture: Architecture, tiny_state: State, change: Callable[[RIFormer], RIFormer] | None
) -> None:
    indices = (0, 1, 4, 6)
    for index, width in ((0, 8), (1, 16), (4, 24)):
        tiny_state[f"backbone.norm{index}.weight"] = torch.full((width,), float(index + 2))
        tiny_state[f"backbone.norm{index}.bias"] = torch.full((width,), 0.5)
    model = model_from_state(tiny_architecture, Form.TRAINING, tiny_state, out_indices=[-3, 0, 1, 6])
    assert model.backbone.out_indices == indices
    model = change(model) if change is not None else model
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == tiny_architecture.shapes(
        model.form, indices
    )
    raw: dict[int, Tensor] = {}
    for index in indices:
        model.backbone.network[index].register_forward_hook(
            lambda _module, _inputs, output, index=index: raw.update({index: output})
        )
    maps = model.extract_feat(torch.randn(1, 3, 48, 40), stage="backbone")
    assert [tuple(value.shape[1:]) for value in maps] == [(8, 12, 10), (16, 6, 5), (24, 3, 3), (32, 2, 2)]
    for index, found in zip(indices[:3], maps, strict=False):
        x = raw[index]
        normed = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)
        torch.testing.assert_close(found, normed * (index + 2) + 0.5, rtol=1e-4, atol=1e-4)


def test_without_the_last_stage_there_are_features_but_no_scores(tiny_architecture: Architecture) -> None:
    model = RIFormer(tiny_architecture, out_indices=(2,))
    (features,) = model.extract_feat(torch.ones(1, 3, 32, 32))
    assert features.shape == (1, 16)
    with pytest.raises(OptionError, match="no class scores"):
        model(torch.ones(1, 3, 32, 32))


@pytest.mark.parametrize("indices", [(), (7,), (-8, 6), (2, 2), (6, -1)])
def test_out_indices_must_be_different_positions(
    tiny_architecture: Architecture, indices: tuple[int, ...]
) -> None:
    with pytest.raises(OptionError, match="out_indices must be different positions"):
        RIFormer(tiny_architecture, out_indices=indices)
