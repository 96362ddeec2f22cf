from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.architecture import Architecture, Form

TINY = Architecture.from_arch((1, 2, 1, 1), (4, 8, 12, 16), (4, 2, 1.5, 3.3), num_classes=5)
PER_BLOCK: dict[Form, dict[str, tuple[int, ...]]] = {
    Form.TRAINING: {
        "norm1.weight": (8,),
        "norm1.bias": (8,),
        "token_mixer.affine.weight": (8, 1, 1, 1),
        "token_mixer.affine.bias": (8,),
        "norm2.weight": (8,),
        "norm2.bias": (8,),
        "layer_scale_1": (8,),
        "layer_scale_2": (8,),
    },
    Form.DEPLOY: {
        "norm_reparam.weight": (8,),
        "norm_reparam.bias": (8,),
        "norm2.weight": (8,),
        "norm2.bias": (8,),
        "layer_scale_1": (8,),
        "layer_scale_2": (8,),
    },
    Form.FOLDED: {"norm_reparam.weight": (8,), "norm_reparam.bias": (8,)},
}


def test_hidden_widths_are_truncated_as_mmpretrain_does() -> None:
    assert TINY.hidden_dims == (16, 16, 18, 52)  # int(16 * 3.3) is 52


def test_the_default_mlp_ratio_is_four_and_the_default_classes_imagenets() -> None:
    default = Architecture.from_arch([2, 2, 6, 2], [64, 128, 320, 512])
    assert default.hidden_dims == (256, 512, 1280, 2048)
    assert default.num_classes == 1000


def test_blocks_are_named_as_in_mmpretrain_with_odd_numbers_for_the_downsampling() -> None:
    assert TINY.block_names == (
        ("backbone.network.0.0",),
        ("backbone.network.2.0", "backbone.network.2.1"),
        ("backbone.network.4.0",),
        ("backbone.network.6.0",),
    )


@pytest.mark.parametrize("form", Form)
def test_every_key_of_a_block_has_its_shape(form: Form) -> None:
    expected = PER_BLOCK[form] | {
        "mlp.fc1.weight": (16, 8, 1, 1),
        "mlp.fc1.bias": (16,),
        "mlp.fc2.weight": (8, 16, 1, 1),
        "mlp.fc2.bias": (8,),
    }
    prefix = "backbone.network.2.1."
    found = {k.removeprefix(prefix): v for k, v in TINY.shapes(form).items() if k.startswith(prefix)}
    assert found == expected


@pytest.mark.parametrize("form", Form)
def test_every_key_outside_the_blocks_has_its_shape_in_every_form(form: Form) -> None:
    blocks = tuple(f"{name}." for stage in TINY.block_names for name in stage)
    assert {k: v for k, v in TINY.shapes(form).items() if not k.startswith(blocks)} == {
        "backbone.patch_embed.proj.weight": (4, 3, 7, 7),
        "backbone.patch_embed.proj.bias": (4,),
        "backbone.network.1.proj.weight": (8, 4, 3, 3),
        "backbone.network.1.proj.bias": (8,),
        "backbone.network.3.proj.weight": (12, 8, 3, 3),
        "backbone.network.3.proj.bias": (12,),
        "backbone.network.5.proj.weight": (16, 12, 3, 3),
        "backbone.network.5.proj.bias": (16,),
        "backbone.norm6.weight": (16,),
        "backbone.norm6.bias": (16,),
        "head.fc.weight": (5, 16),
        "head.fc.bias": (5,),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", (1, 2, 1)),
        ("layers", (1, 2, 1, 1, 1)),
        ("layers", (1, 0, 1, 1)),
        ("embed_dims", (4, 8, 12)),
        ("embed_dims", (4, 8, 8, 16)),
        ("embed_dims", (-4, 8, 12, 16)),
        ("hidden_dims", (16, 0, 18, 52)),
        ("num_classes", 0),
    ],
)
def test_an_impossible_shape_is_refused_by_name_and_value(name: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        dataclasses.replace(TINY, **{name: value})  # type: ignore[arg-type]
    (detail,) = caught.value.details
    assert name in detail
    assert str(value) in detail


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        Architecture(layers=(), embed_dims=(4, 4, 8, 16), hidden_dims=(0, 1, 1, 1), num_classes=-1)
    assert len(caught.value.details) == 4


@pytest.mark.parametrize("ratios", [(4, 4, 4), (4, 4, 4, 4, 4)])
def test_a_ratio_too_few_or_too_many_is_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(OptionError):
        Architecture.from_arch((1, 1, 1, 1), (4, 8, 12, 16), ratios)
