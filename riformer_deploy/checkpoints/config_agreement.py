"""A checkpoint read with a config file: what both say must agree, what one alone says is taken from it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from riformer_deploy.checkpoints.allowlists import is_number
from riformer_deploy.checkpoints.config_files import ConfigFile, read_config
from riformer_deploy.checkpoints.load import Checkpoint
from riformer_deploy.checkpoints.mmengine_config import contradictions, refused_settings
from riformer_deploy.checkpoints.stored_pipeline import preprocessing_of
from riformer_deploy.common.errors import CheckpointMismatchError, OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.variants import ARCHITECTURES


def architecture_of(config: ConfigFile) -> Architecture:
    """The shape of the network that a config describes.

    Raises:
        OptionError: It describes none, or not by literals.
    """
    arch, classes = config.get("model", "backbone", "arch"), config.get("model", "head", "num_classes")
    if isinstance(arch, str) and arch.lower() in ARCHITECTURES and _is_count(classes):
        return dataclasses.replace(ARCHITECTURES[arch.lower()], num_classes=classes)
    if isinstance(arch, dict) and _is_count(classes):
        layers: Any = arch.get("layers")
        dims: Any = arch.get("embed_dims")
        ratios: Any = arch.get("mlp_ratios", [4, 4, 4, 4])
        if (
            _are_counts(layers)
            and _are_counts(dims)
            and isinstance(ratios, list)
            and all(map(is_number, ratios))
        ):
            return Architecture.from_arch(layers, dims, ratios, num_classes=classes)
    raise OptionError(
        f"The config {config.path} does not say what shape its RIFormer has.",
        remedy="It needs model.backbone.arch (a published name, or layers and embed_dims) and "
        "model.head.num_classes, as literals.",
    )


def with_config(checkpoint: Checkpoint, config: ConfigFile | Path | str | None) -> Checkpoint:
    """A checkpoint with what a config file says beside it.

    Args:
        checkpoint: As it was loaded.
        config: The config, or its path; None changes nothing.

    Returns:
        The checkpoint; its ``meta`` holds the config as if training had stored it.

    Raises:
        CheckpointMismatchError: The config describes another function than this toolkit computes, or
            something else than the checkpoint stores; every contradiction is listed.
        OptionError: The config cannot be read, or describes no model.
    """
    if config is None:
        return checkpoint
    config = config if isinstance(config, ConfigFile) else read_config(config)
    if config.get("model") is None:
        raise OptionError(
            f"The config {config.path} describes no model.", remedy="Give the one that it was trained with."
        )
    stored = checkpoint.meta.get("cfg")
    before = preprocessing_of(stored) if isinstance(stored, str) else None
    shapes = contradictions(config.text, checkpoint.architecture)
    problems = [
        *refused_settings(config.text),
        *(text.replace("the stored config", "the config") for text in shapes),
        *_form(checkpoint, config),
        *_pipelines(checkpoint, before, preprocessing_of(config.text)),
        *_names(checkpoint, config),
    ]
    if problems:
        raise CheckpointMismatchError(
            f"{checkpoint.path} is not what {config.path} describes.",
            details=problems,
            remedy="Give the config that this file was trained (or fused) with, or leave the config away to "
            "take what the file itself says.",
        )
    # Of two assignments the later counts: what only training stored stays.
    both = config.text if before is None else f"{stored}\n{config.text}"
    meta: dict[str, Any] = {**checkpoint.meta, "cfg": both}
    if checkpoint.class_names is None and config.class_names is not None:
        meta["dataset_meta"] = {"classes": list(config.class_names)}
    return dataclasses.replace(checkpoint, meta=meta)


def _form(checkpoint: Checkpoint, config: ConfigFile) -> list[str]:
    """A training form can be fused where the config asks for deploy form; a deploy form cannot be undone."""
    if checkpoint.form is Form.TRAINING or config.deploy:
        return []
    return [
        "model.backbone.deploy: the checkpoint is in deploy form, the config is the training form's "
        "(mmpretrain's deploy configs add model = dict(backbone=dict(deploy=True)))"
    ]


def _pipelines(checkpoint: Checkpoint, stored: Preprocessing | None, said: Preprocessing | None) -> list[str]:
    if said is None:
        return []
    problems = [
        f"{name}: the checkpoint stores {getattr(stored, name)}, the config says {getattr(said, name)}"
        for name in ("resize_short_edge_px", "crop_px", "interpolation", "mean", "std", "channel_order")
        if stored is not None and getattr(stored, name) != getattr(said, name)
    ]
    return problems + [
        f"data_preprocessor.{name}: the checkpoint stores {values}, the config says {known}"
        for name, values, known in (("mean", checkpoint.mean, said.mean), ("std", checkpoint.std, said.std))
        if values is not None
        and not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(values, known, strict=True))
    ]


def _names(checkpoint: Checkpoint, config: ConfigFile) -> list[str]:
    said, stored, count = config.class_names, checkpoint.class_names, checkpoint.architecture.num_classes
    if said is None:
        return []
    if len(said) != count:
        return [f"classes: the config names {len(said)}, the checkpoint has {count}"]
    if stored is None or stored == said:
        return []
    place = next(i for i, (a, b) in enumerate(zip(stored, said, strict=True)) if a != b)
    return [
        f"classes: number {place} is {stored[place]!r} in the checkpoint and {said[place]!r} in the config"
    ]


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))
