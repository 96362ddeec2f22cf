"""Decides what is done to an image before the network sees it, from the surest source that says so."""

from __future__ import annotations

import dataclasses
import math

from riformer_deploy.checkpoints.load import Checkpoint
from riformer_deploy.checkpoints.stored_pipeline import StoredPipeline, read_pipeline
from riformer_deploy.common.errors import CheckpointMismatchError, CheckpointValuesError, OptionError
from riformer_deploy.data.preprocessing import LARGEST_SIDE_PX, Preprocessing
from riformer_deploy.data.preprocessing_changes import AS_FOUND, PreprocessingChanges
from riformer_deploy.model.architecture import SMALLEST_SIDE_PX
from riformer_deploy.model.variants import Variant


def _known(
    checkpoint: Checkpoint, variant: Variant | None, stored: StoredPipeline, notes: list[str]
) -> Preprocessing | None:
    """What was asked for, else what training stored, else what the published file's name says."""
    if variant is not None:
        _check_variant(checkpoint, variant, stored)
        return variant.preprocessing
    if stored.geometry is not None:
        notes += [f"the test pipeline stored in the checkpoint: {remark}" for remark in stored.remarks]
        if stored.normalisation is None:
            notes.append(
                "the stored config has a test pipeline and no normalisation that is understood; ImageNet's "
                "is assumed (--preprocess mean=R/G/B,std=R/G/B,order=RGB says another)"
            )
        return stored.preprocessing or Preprocessing(**vars(stored.geometry), source="checkpoint")
    named = [item.preprocessing for item in checkpoint.variants if item.file_name == checkpoint.path.name]
    return named[0] if named else None


def _with_stored(found: Preprocessing, stored: StoredPipeline, notes: list[str]) -> Preprocessing:
    """What the stored config tells beside a geometry that came from elsewhere."""
    if stored.geometry is not None:
        return found
    if stored.unsupported:
        notes.append(
            f"the test pipeline stored in the checkpoint has {len(stored.unsupported)} steps that "
            f"are not done here: {'; '.join(stored.unsupported)}. predict, features and accuracy refuse "
            "pictures until --preprocess short-edge=PX (or none) says what to do instead"
        )
    known = vars(stored.normalisation) if stored.normalisation is not None else {}
    return dataclasses.replace(found, **known, unsupported=stored.unsupported)


def _check_variant(checkpoint: Checkpoint, variant: Variant, stored: StoredPipeline) -> None:
    """Refuse a variant that what is stored with the weights, or the file's name, contradicts."""
    problems = [
        f"the file bears the published name of {other.name}"
        for other in checkpoint.variants
        if other.file_name == checkpoint.path.name and other is not variant
    ]
    described = {
        name: value
        for part in (stored.geometry, stored.normalisation)
        if part is not None
        for name, value in vars(part).items()
    }
    problems += [
        f"{name}: the stored config says {value}, {variant.name} has {getattr(variant.preprocessing, name)}"
        for name, value in described.items()
        if value != getattr(variant.preprocessing, name)
    ]
    if problems:
        raise CheckpointMismatchError(
            f"{checkpoint.path} is not {variant.name}.",
            details=problems,
            remedy="Leave --variant away; --image-size alone changes the input's size.",
        )


def _of_size(checkpoint: Checkpoint, size: tuple[int, int]) -> Preprocessing:
    """That of the published model of this size, else no resize at all."""
    for variant in checkpoint.variants:
        if variant.preprocessing.crop_px == size:
            return variant.preprocessing
    return Preprocessing(resize_short_edge_px=None, crop_px=size, source="option")


def _assumed(checkpoint: Checkpoint, stored: StoredPipeline, notes: list[str]) -> Preprocessing:
    if not checkpoint.variants:
        why = "its test pipeline is not understood" if stored.unsupported else "it stores no test pipeline"
        raise OptionError(
            f"The image size of {checkpoint.path} is not known: it has no published variant's shape, and "
            f"{why}.",
            details=stored.unsupported,
            remedy="Say it with --image-size PX (or HxW): the size of the images that it was trained on.",
        )
    found = checkpoint.variants[0].preprocessing
    names = " and ".join(variant.name for variant in checkpoint.variants)
    notes.append(
        f"image size {found.crop_px[0]} px is assumed: the weights fit {names}, and nothing in the file "
        "tells them apart; say which with --variant or --image-size"
    )
    return dataclasses.replace(found, source="assumed")


def _stored_normalisation(checkpoint: Checkpoint, found: Preprocessing) -> Preprocessing:
    """Mean and deviation that were saved with the weights go before any other."""
    if checkpoint.mean is None or checkpoint.std is None:
        return found
    stored, known = (*checkpoint.mean, *checkpoint.std), (*found.mean, *found.std)
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(stored, known, strict=True)):
        return found  # the same, but for their rounding to float32
    try:
        return dataclasses.replace(found, mean=checkpoint.mean, std=checkpoint.std)
    except ValueError as err:
        raise CheckpointValuesError(
            f"The normalisation stored in {checkpoint.path} (std {checkpoint.std}) cannot be used: {err}.",
            remedy="Say the right one with --preprocess mean=R/G/B,std=R/G/B after taking these tensors out.",
        ) from err


def resolve_preprocessing(
    checkpoint: Checkpoint,
    *,
    variant: Variant | None,
    image_size_px: tuple[int, int] | None,
    notes: list[str],
    changes: PreprocessingChanges = AS_FOUND,
) -> Preprocessing:
    """The preprocessing of a checkpoint.

    Args:
        checkpoint: The weights, with whatever training stored beside them.
        variant: The published model that the user says it is.
        image_size_px: Height and width that the user asked for.
        notes: Receives a sentence for each thing that the user should know.
        changes: Settings that the user gave one by one; they go before everything else.

    Raises:
        OptionError: Nothing says what size the images have, or what was asked for contradicts itself.
    """
    if image_size_px is not None and min(image_size_px) < 1:
        raise OptionError(
            f"The image must be at least {SMALLEST_SIDE_PX} px on each side, got {image_size_px}."
        )
    if image_size_px is not None and max(image_size_px) > LARGEST_SIDE_PX:
        raise OptionError(f"The image may be at most {LARGEST_SIDE_PX:,} px a side, got {image_size_px}.")
    if image_size_px is not None and changes.crop_px not in (None, image_size_px):
        raise OptionError(
            f"The image size {image_size_px} and the crop {changes.crop_px} contradict each other.",
            remedy="Say one of --image-size and --preprocess crop=PX.",
        )
    found = _found(checkpoint, variant, image_size_px, changes, notes)
    resolved = changes.apply(_stored_normalisation(checkpoint, found))
    if min(resolved.crop_px) < SMALLEST_SIDE_PX and resolved.source == "checkpoint":
        raise OptionError(
            f"The config in {checkpoint.path} crops pictures to {resolved.crop_px} px; RIFormer takes at "
            f"least {SMALLEST_SIDE_PX} px on each side.",
            remedy="Say the size of the images that it was trained on with --image-size PX (or HxW).",
        )
    return resolved


def _found(
    checkpoint: Checkpoint,
    variant: Variant | None,
    image_size_px: tuple[int, int] | None,
    changes: PreprocessingChanges,
    notes: list[str],
) -> Preprocessing:
    """Everything but the settings given one by one, of which only the crop helps to find the rest."""
    config = checkpoint.meta.get("cfg")
    stored = read_pipeline(config) if isinstance(config, str) else StoredPipeline()
    found = _known(checkpoint, variant, stored, notes)
    size = image_size_px or changes.crop_px
    if found is None and size is not None and min(size) >= 1:
        found = _of_size(checkpoint, size)
    if found is None:
        found = _assumed(checkpoint, stored, notes)
    if variant is None:
        found = _with_stored(found, stored, notes)
    if image_size_px is not None and image_size_px != found.crop_px:
        (height, width), (own_height, own_width) = image_size_px, found.crop_px
        notes.append(
            f"exported at {height}x{width} px; the model's own input is {own_height}x{own_width} px; "
            "pictures are not resized, only cropped (--preprocess short-edge=PX resizes them first)"
        )
        found = dataclasses.replace(
            found, resize_short_edge_px=None, resize_to_px=None, crop_px=image_size_px, source="option"
        )
    return found
