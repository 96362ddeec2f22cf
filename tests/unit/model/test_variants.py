from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.variants import VARIANTS, Variant, get_variant

# What mmpretrain 1.2.0 itself says of its ten configs.
GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "variants.json").read_text()
)
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
PUBLISHED_FILES = {
    "riformer-s12_32xb128_in1k_20230406-6741ce71.pth",
    "riformer-s24_32xb128_in1k_20230406-fdab072a.pth",
    "riformer-s36_32xb128_in1k_20230406-fdfcd3b0.pth",
    "riformer-m36_32xb128_in1k_20230406-2fcb9d9b.pth",
    "riformer-m48_32xb128_in1k_20230406-2b9d1abf.pth",
    "riformer-s12_32xb128_in1k-384px_20230406-145eda4c.pth",
    "riformer-s24_32xb128_in1k-384px_20230406-bafae7ab.pth",
    "riformer-s36_32xb128_in1k-384px_20230406-017ed3c4.pth",
    "riformer-m36_32xb128_in1k-384px_20230406-66a6f764.pth",
    "riformer-m48_32xb128_in1k-384px_20230406-2e874826.pth",
}


def test_they_are_mmpretrains_ten() -> None:
    assert len(VARIANTS) == 10
    assert sorted(variant.config for variant in VARIANTS.values()) == sorted(GOLDEN)


@every_variant
@pytest.mark.parametrize("form", [Form.TRAINING, Form.DEPLOY])
def test_keys_and_parameters_are_as_many_as_mmpretrains(variant: Variant, form: Form) -> None:
    golden = GOLDEN[variant.config]
    shapes = variant.architecture.shapes(form)
    assert len(shapes) == golden[f"{form}_keys"]
    assert sum(math.prod(shape) for shape in shapes.values()) == golden[f"params_{form}"]


@every_variant
def test_published_parameters_are_the_deploy_forms(variant: Variant) -> None:
    assert round(GOLDEN[variant.config]["params_deploy"] / 1e6, 3) == variant.published_params_m


@every_variant
def test_preprocessing_is_the_configs_test_pipeline(variant: Variant) -> None:
    golden = GOLDEN[variant.config]
    steps = {step["type"]: step for step in golden["test_pipeline"]}
    assert list(steps) == ["LoadImageFromFile", "ResizeEdge", "CenterCrop", "PackInputs"]
    assert steps["ResizeEdge"]["edge"] == "short"
    assert variant.image_size_px == golden["image_size"]
    assert variant.preprocessing == Preprocessing(
        resize_short_edge_px=steps["ResizeEdge"]["scale"],
        crop_px=(steps["CenterCrop"]["crop_size"],) * 2,
        interpolation=steps["ResizeEdge"]["interpolation"],
        mean=tuple(golden["norm_mean"]),
        std=tuple(golden["norm_std"]),
        channel_order="RGB",
        source="variant",
    )


def test_file_names_are_the_published_ones_and_end_in_the_hash() -> None:
    assert {variant.file_name for variant in VARIANTS.values()} == PUBLISHED_FILES
    for variant in VARIANTS.values():
        assert re.fullmatch(r"[0-9a-f]{8}", variant.sha256_prefix)
        assert variant.file_name.endswith(f"-{variant.sha256_prefix}.pth")


@every_variant
def test_names_files_and_configs_of_one_variant_agree(variant: Variant) -> None:
    size = variant.name.removeprefix("riformer-").partition("_")[0]
    large = variant.image_size_px == 384
    assert variant.name == f"riformer-{size}_in1k{'-384' * large}"
    for text in (variant.config, variant.file_name):
        assert text.startswith(f"riformer-{size}_")
        assert ("-384px" in text) == large


@every_variant
def test_published_figures_are_in_order(variant: Variant) -> None:
    assert 70 < variant.top1_percent < variant.top5_percent < 100
    other = VARIANTS[variant.name.removesuffix("-384")]
    if other is not variant:
        # multiply-adds grow with the number of pixels, but for the classifier
        ratio = variant.published_flops_g / other.published_flops_g
        assert ratio == pytest.approx((384 / 224) ** 2, rel=2e-3)
        assert variant.top1_percent > other.top1_percent


def test_get_variant_finds_every_name() -> None:
    assert [get_variant(name).name for name in VARIANTS] == list(VARIANTS)


@pytest.mark.parametrize("name", ["", "riformer-s13", "riformer-s12_in1k-448", "poolformer-s12_in1k"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(OptionError, match=f"called {name!r}") as caught:
        get_variant(name)
    assert all(known in caught.value.details[0] for known in VARIANTS)
    assert ("Did you mean riformer-s12_in1k" in caught.value.message) == name.startswith("riformer")


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("s12", "riformer-s12_in1k"),
        ("riformer-s12", "riformer-s12_in1k"),
        ("RIFORMER-S12_IN1K", "riformer-s12_in1k"),
        ("m48-384", "riformer-m48_in1k-384"),
        ("riformer-m48_in1k-384px", "riformer-m48_in1k-384"),
    ],
)
def test_a_short_name_means_the_published_one(short: str, name: str) -> None:
    assert get_variant(short).name == name
