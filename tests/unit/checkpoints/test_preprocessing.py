from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.checkpoints.load import Checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import CheckpointMismatchError, OptionError
from riformer_deploy.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from riformer_deploy.data.preprocessing_changes import PreprocessingChanges
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.variants import VARIANTS, Variant

S12, S12_384 = VARIANTS["riformer-s12_in1k"], VARIANTS["riformer-s12_in1k-384"]
OWN_SHAPE = Architecture.from_arch((1, 1, 1, 1), (4, 8, 12, 16), num_classes=2)
CONFIG = (
    "test_pipeline = [dict(type='ResizeEdge', scale=200, backend='pillow', interpolation='lanczos'), "
    "dict(type='CenterCrop', crop_size=192)]\n"
    "data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=False)"
)
STORED = Preprocessing(
    resize_short_edge_px=200,
    crop_px=(192, 192),
    interpolation="lanczos",
    mean=(1, 2, 3),
    std=(4, 5, 6),
    channel_order="BGR",
    source="checkpoint",
)


def checkpoint(
    architecture: Architecture = S12.architecture,
    *,
    name: str = "epoch_10.pth",
    config: str | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
) -> Checkpoint:
    return Checkpoint(
        path=Path("somewhere") / name,
        sha256="",
        architecture=architecture,
        form=Form.TRAINING,
        weights=WeightSet.ONLY,
        state={},
        stored_dtypes=("float32",),
        meta={} if config is None else {"cfg": config},
        mean=mean,
        std=std,
    )


def resolve(
    source: Checkpoint, variant: Variant | None = None, size: tuple[int, int] | None = None
) -> tuple[Preprocessing, list[str]]:
    notes: list[str] = []
    return resolve_preprocessing(source, variant=variant, image_size_px=size, notes=notes), notes


def test_a_variant_that_the_stored_config_contradicts_is_refused_with_every_difference() -> None:
    with pytest.raises(CheckpointMismatchError, match=f"is not {S12.name}") as caught:
        resolve(checkpoint(config=CONFIG), S12)
    assert [detail.partition(":")[0] for detail in caught.value.details] == [
        "resize_short_edge_px",
        "interpolation",
        "crop_px",
        "mean",
        "std",
        "channel_order",
    ]
    assert "--variant" in caught.value.remedy


def test_a_variant_that_the_published_files_name_contradicts_is_refused() -> None:
    with pytest.raises(CheckpointMismatchError) as caught:
        resolve(checkpoint(name=S12.file_name), S12_384)
    assert caught.value.details == (f"the file bears the published name of {S12.name}",)


@pytest.mark.parametrize("variant", [S12, S12_384], ids=["224", "384"])
def test_a_variant_that_nothing_contradicts_is_taken(variant: Variant) -> None:
    assert resolve(checkpoint(), variant) == (variant.preprocessing, [])
    assert resolve(checkpoint(name=variant.file_name), variant) == (variant.preprocessing, [])


def test_the_stored_config_goes_before_the_files_name() -> None:
    assert resolve(checkpoint(config=CONFIG, name=S12_384.file_name)) == (STORED, [])


@pytest.mark.parametrize("variant", [S12, S12_384], ids=["224", "384"])
@pytest.mark.parametrize("config", [None, "", "broken ["])
def test_the_published_files_name_goes_before_an_assumption(variant: Variant, config: str | None) -> None:
    assert resolve(checkpoint(config=config, name=variant.file_name)) == (variant.preprocessing, [])


def test_the_name_of_another_shapes_published_file_says_nothing() -> None:
    found, notes = resolve(checkpoint(name=VARIANTS["riformer-m36_in1k-384"].file_name))
    assert (found.crop_px, found.source, len(notes)) == ((224, 224), "assumed", 1)


def test_an_assumption_is_marked_and_noted_with_what_else_it_could_be() -> None:
    found, (note,) = resolve(checkpoint())
    assert found == dataclasses.replace(S12.preprocessing, source="assumed")
    assert "224 px is assumed" in note
    assert S12.name in note
    assert S12_384.name in note


def test_a_shape_of_ones_own_that_says_no_size_is_refused_with_the_way_out() -> None:
    with pytest.raises(OptionError, match="not known") as caught:
        resolve(checkpoint(OWN_SHAPE))
    assert "--image-size" in caught.value.remedy


def test_a_size_asked_for_picks_the_published_model_of_that_size() -> None:
    assert resolve(checkpoint(), size=(384, 384)) == (S12_384.preprocessing, [])


@pytest.mark.parametrize("architecture", [OWN_SHAPE, S12.architecture], ids=["own", "s12"])
def test_an_unpublished_size_is_taken_without_a_resize(architecture: Architecture) -> None:
    found, _ = resolve(checkpoint(architecture), size=(64, 96))
    assert found == Preprocessing(resize_short_edge_px=None, crop_px=(64, 96), source="option")


def test_a_size_that_differs_from_the_models_own_is_noted_and_keeps_the_normalisation() -> None:
    found, (note,) = resolve(checkpoint(config=CONFIG), size=(96, 128))
    assert found == dataclasses.replace(STORED, resize_short_edge_px=None, crop_px=(96, 128), source="option")
    assert "exported at 96x128 px" in note
    assert "192x192 px" in note


def test_the_models_own_size_asked_for_changes_nothing() -> None:
    assert resolve(checkpoint(config=CONFIG), size=(192, 192)) == (STORED, [])


@pytest.mark.parametrize("variant", [None, S12])
def test_normalisation_saved_with_the_weights_goes_before_any_other(variant: Variant | None) -> None:
    config = CONFIG if variant is None else None  # which would contradict the variant
    found, _ = resolve(checkpoint(config=config, mean=(7, 8, 9), std=(10, 11, 12)), variant)
    expected = STORED if variant is None else variant.preprocessing
    assert found == dataclasses.replace(expected, mean=(7, 8, 9), std=(10, 11, 12))


def test_the_same_normalisation_rounded_to_float32_is_the_published_one_exactly() -> None:
    mean, std = ([float(np.float32(v)) for v in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
    rounded = checkpoint(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
    assert rounded.mean != IMAGENET_MEAN
    found, _ = resolve(rounded, S12)
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("changed", ["mean", "std"])
def test_a_difference_beyond_rounding_in_one_channel_is_kept(changed: str) -> None:
    values = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    values[changed] = (*values[changed][:2], values[changed][2] * (1 + 1e-5))
    found, _ = resolve(checkpoint(mean=values["mean"], std=values["std"]), S12)
    assert (found.mean, found.std) == (values["mean"], values["std"])


UNKNOWN = CONFIG.replace("dict(type='CenterCrop'", "dict(type='Grayscale'), dict(type='CenterCrop'")


def test_a_step_that_is_not_understood_keeps_the_normalisation_and_is_recorded() -> None:
    found, notes = resolve(checkpoint(OWN_SHAPE, config=UNKNOWN), size=(192, 192))
    assert (found.mean, found.std, found.channel_order) == ((1, 2, 3), (4, 5, 6), "BGR")
    assert (found.crop_px, found.resize_short_edge_px) == ((192, 192), None)
    assert found.unsupported == ("{'type': 'Grayscale'} is not done here",)
    assert any("Grayscale" in note and "--preprocess" in note for note in notes)


def test_a_file_that_stores_a_pipeline_is_never_said_to_store_none() -> None:
    with pytest.raises(OptionError, match="pipeline is not understood") as caught:
        resolve(checkpoint(OWN_SHAPE, config=UNKNOWN))
    assert caught.value.details == ("{'type': 'Grayscale'} is not done here",)
    with pytest.raises(OptionError, match="stores no test pipeline"):
        resolve(checkpoint(OWN_SHAPE))


def test_what_the_user_says_of_the_geometry_takes_the_unknown_steps_place() -> None:
    notes: list[str] = []
    found = resolve_preprocessing(
        checkpoint(OWN_SHAPE, config=UNKNOWN),
        variant=None,
        image_size_px=None,
        notes=notes,
        changes=PreprocessingChanges(resize_short_edge_px=200, crop_px=(192, 192)),
    )
    assert (found.unsupported, found.mean) == ((), (1, 2, 3))


def test_a_pipeline_without_a_normalisation_is_taken_and_the_rest_assumed_aloud() -> None:
    found, (note,) = resolve(checkpoint(OWN_SHAPE, config=CONFIG.partition("\n")[0]))
    assert (found.crop_px, found.mean) == ((192, 192), IMAGENET_MEAN)
    assert "ImageNet's is assumed" in note
