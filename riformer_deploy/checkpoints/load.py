"""From a checkpoint file to known weights: which architecture, which form, and nothing amiss."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from riformer_deploy.checkpoints.detect import (
    check_config,
    check_keys,
    check_settings,
    recognise_architecture,
    recognise_form,
)
from riformer_deploy.checkpoints.find_weights import find_weights
from riformer_deploy.checkpoints.read_file import read_file
from riformer_deploy.checkpoints.state_dict import channel_values, plain_data, read_values
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    CheckpointMismatchError,
    CheckpointUnreadableError,
    CheckpointValuesError,
    OptionError,
)
from riformer_deploy.common.foreign_data import foreign_data
from riformer_deploy.model.architecture import LAST_STAGE, POSITIONS, Architecture, Form
from riformer_deploy.model.variants import VARIANTS, Variant

_LOSS = "head.loss_module."  # buffers of a loss, such as the weights of the classes
_NORM = re.compile(r"backbone\.norm([0-5])\.(?:weight|bias)")  # of maps that detectors and segmenters take


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights that are complete, finite and known to be a RIFormer's.

    Attributes:
        path: The file.
        sha256: Of the file.
        architecture: Recognised from the tensors' shapes alone.
        form: The form that the weights are in.
        weights: Which set of weights was taken.
        state: Tensors by mmpretrain's keys, float32, contiguous; exactly
            ``architecture.shapes(form, out_indices)``.
        stored_dtypes: Names of the types that the file stored them in.
        meta: The file's ``meta``, plain data only.
        mean: Normalisation stored with the weights (``data_preprocessor.mean``), per channel.
        std: ``data_preprocessor.std``, per channel.
        notes: What of the file was left out.
    """

    path: Path
    sha256: str
    architecture: Architecture
    form: Form
    weights: WeightSet
    state: dict[str, Tensor]
    stored_dtypes: tuple[str, ...]
    meta: dict[str, Any]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    notes: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The published models with this backbone: none, or one for each image size."""
        return tuple(
            variant
            for variant in VARIANTS.values()
            if (
                variant.architecture.layers,
                variant.architecture.embed_dims,
                variant.architecture.hidden_dims,
            )
            == (self.architecture.layers, self.architecture.embed_dims, self.architecture.hidden_dims)
        )

    @property
    def out_indices(self) -> tuple[int, ...]:
        """Positions in ``backbone.network`` that ``state`` has a norm for, the last stage among them."""
        return tuple(index for index in POSITIONS if f"backbone.norm{index}.weight" in self.state)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in ``meta['dataset_meta']``, if there is one for each output."""
        names = _stored_class_names(self.meta)
        return names if names is not None and len(names) == self.architecture.num_classes else None

    @property
    def weights_sha256(self) -> str:
        """Over the keys, shapes and float32 values, independent of how the file stores them."""
        digest = hashlib.sha256()
        for key in sorted(self.state):
            digest.update(f"{key}{tuple(self.state[key].shape)}".encode())
            digest.update(self.state[key].numpy().data)
        return digest.hexdigest()


def load_checkpoint(
    path: Path | str,
    *,
    weights: WeightSet | str | None = None,
    key: str | None = None,
    out_indices: Sequence[int] = (LAST_STAGE,),
) -> Checkpoint:
    """Load a RIFormer checkpoint of any form without executing anything in it.

    Args:
        path: mmengine's training checkpoint, a published one, a state dict under any key and prefix; a
            safetensors file or a folder of them; an ``.npz`` of a state dict.
        weights: ``AVERAGED`` or ``RAW`` where the file holds both; None takes what mmpretrain
            would (the average, where there is one).
        key: Which RIFormer, where the file holds several: names of keys joined by dots, such as ``student``.
        out_indices: Positions in ``backbone.network`` whose norms are kept where the file holds them. Class
            scores need the last stage's alone, which must be there.

    Raises:
        CheckpointUnreadableError: The file is missing, empty, truncated or not a PyTorch checkpoint, or bears
            the name of a published one and is another.
        CheckpointUnsafeError: The file names code outside the training frameworks.
        NotRIFormerError: The weights are another architecture's.
        CheckpointKeysError: Keys are missing, unexpected, mis-shaped, or mix both forms; or there are
            several RIFormers and ``key`` chooses none.
        CheckpointValuesError: A weight is NaN, infinite or not a floating-point tensor.
        CheckpointMismatchError: ``weights`` or ``key`` asks for what the file does not hold, or the stored
            config has settings that are not computed here.
        OptionError: ``weights`` is neither ``averaged`` nor ``raw``.
    """
    path = Path(path)
    wanted = _wanted(weights)
    read = read_file(path)
    _check_published_name(path, read.sha256)
    chosen = find_weights(path, read.content, wanted=wanted, key=key)
    found = dict(chosen.state)
    extra = {name: found.pop(name) for name in list(found) if name.startswith("data_preprocessor.")}
    losses = [name for name in found if name.startswith(_LOSS)]
    unused = [name for name in found if (norm := _NORM.fullmatch(name)) and int(norm[1]) not in out_indices]
    for name in (*losses, *unused):
        del found[name]
    form = recognise_form(path, found)
    architecture = recognise_architecture(path, found)
    with foreign_data(path, CheckpointUnreadableError, kind="a checkpoint whose meta is read"):
        meta = plain_data(chosen.meta)
    meta = meta if isinstance(meta, dict) else {}
    config = meta.get("cfg") if isinstance(meta.get("cfg"), str) else None
    check_settings(path, found, config, architecture)
    state, odd = read_values(found)
    held = {int(norm[1]) for name in found if (norm := _NORM.fullmatch(name))}
    check_keys(path, found, architecture, form, out_indices=(*held, LAST_STAGE), also=odd)
    if odd:
        raise CheckpointValuesError(
            f"{path} holds weights that are not finite floating-point numbers.",
            details=odd,
            remedy="Training diverged or the file was damaged; go back to an earlier checkpoint.",
        )
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in found.values()})
    if config is not None:
        check_config(path, config, architecture)
    ours = meta.get("riformer_deploy")
    kept = ours if isinstance(ours, dict) else {}
    return Checkpoint(
        path=path,
        sha256=read.sha256,
        architecture=architecture,
        form=form,
        weights=chosen.taken,
        state=state,
        stored_dtypes=tuple(dtypes),
        meta=meta,
        mean=channel_values(extra.get("data_preprocessor.mean", kept.get("mean"))),
        std=channel_values(extra.get("data_preprocessor.std", kept.get("std"))),
        notes=(
            *read.remarks,
            *chosen.notes,
            *(f"left out, since only training uses it: {name}" for name in losses),
            *(f"left out, since no class score depends on it: {name}" for name in unused),
            *_unfit_class_names(meta, architecture),
        ),
    )


def _stored_class_names(meta: dict[str, Any]) -> tuple[str, ...] | None:
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, dict) else None
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else None


def _unfit_class_names(meta: dict[str, Any], architecture: Architecture) -> tuple[str, ...]:
    """A note where class names are stored and are not one for each output."""
    names = _stored_class_names(meta)
    if names is None or len(names) == architecture.num_classes:
        return ()
    return (
        f"the {len(names)} class names that are stored were not taken: the model has "
        f"{architecture.num_classes} classes (--classes FILE gives others)",
    )


def _wanted(weights: WeightSet | str | None) -> WeightSet | None:
    if weights is None:
        return None
    if weights not in (WeightSet.AVERAGED, WeightSet.RAW):
        raise OptionError(f"weights are {WeightSet.AVERAGED} or {WeightSet.RAW}, got {str(weights)!r}.")
    return WeightSet(weights)


def _check_published_name(path: Path, digest: str) -> None:
    """Refuse a file that bears the name of a published one and is not it."""
    for variant in VARIANTS.values():
        if path.name == variant.file_name and not digest.startswith(variant.sha256_prefix):
            raise CheckpointUnreadableError(
                f"{path} is not the published file of that name: its sha256 begins {digest[:8]}, not "
                f"{variant.sha256_prefix}.",
                remedy="The download was damaged, or the file was changed: fetch it again (riformer-deploy "
                "download), or give a file of yours a name of its own.",
            )


def check_expectations(
    checkpoint: Checkpoint, *, architecture: Architecture | None, num_classes: int | None
) -> None:
    """See that the weights are what the user said they are.

    Args:
        checkpoint: The weights.
        architecture: The shape that they should have; None accepts any.
        num_classes: The number of classes that they should have; None means the architecture's own.

    Raises:
        CheckpointMismatchError: They are not; every contradiction is listed.
    """
    found = checkpoint.architecture
    problems = []
    if architecture is not None:
        problems += [
            f"{name}: {getattr(found, name)}, but {getattr(architecture, name)} was asked for"
            for name in ("layers", "embed_dims", "hidden_dims")
            if getattr(found, name) != getattr(architecture, name)
        ]
        if num_classes is None:
            num_classes = architecture.num_classes
    if num_classes is not None and found.num_classes != num_classes:
        problems.append(f"classes: {found.num_classes}, but {num_classes} were asked for")
    if problems:
        raise CheckpointMismatchError(
            f"{checkpoint.path} is not what was asked for.",
            details=problems,
            remedy="Name the variant and class count that it has (a fine-tuned head has its own), "
            "or leave them away to accept what the tensors say.",
        )
