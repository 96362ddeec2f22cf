from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, empty_model, model_from_state
from riformer_deploy.model.reparameterize import fold, fuse
from riformer_deploy.model.variants import VARIANTS, Variant

State = dict[str, Tensor]


QUICK = {"riformer-s12_in1k", "riformer-s24_in1k-384", "riformer-m36_in1k"}
"""Both image sizes and both widths; the others are deeper or larger."""


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
            "features": features,
            "logits": model.head(features),
            "logits_deploy": fuse(model)(images),
        }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
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
