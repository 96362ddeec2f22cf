"""From a checkpoint file to known weights: which architecture, which form, and nothing amiss."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riformer_deploy.checkpoints.detect import (
    check_config,
    check_keys,
    check_settings,
    recognise_architecture,
    recognise_form,
)
from riformer_deploy.checkpoints.safe_unpickle import read_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    CheckpointMismatchError,
    CheckpointUnreadableError,
    CheckpointValuesError,
    OptionError,
)
from riformer_deploy.common.files import sha256_of
from riformer_deploy.model.architecture import LAST_STAGE, Architecture, Form
from riformer_deploy.model.variants import VARIANTS, Variant

_LOG = logging.getLogger(__name__)
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_LOSS = "head.loss_module."  # buffers of a loss, such as the weights of the classes
_NORM = re.compile(r"backbone\.norm([0-5])\.(?:weight|bias)")  # of maps that detectors and segmenters take
_ACCEPTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights that are complete, finite and known to be a RIFormer's.

    Attributes:
        path: The file.
        sha256: Of the file.
        architecture: Recognised from the tensors' shapes alone.
        form: The form that the weights are in.
        weights: Which set of weights was taken.
        state: Tensors by mmpretrain's keys, float32, contiguous; exactly ``architecture.shapes(form)``, and
            what the file holds of the norms that were asked for.
        stored_dtypes: Names of the types that the file stored them in.
        meta: The file's ``meta``, plain data only.
        mean: Normalisation stored with the weights (``data_preprocessor.mean``), per channel.
        std: Likewise ``data_preprocessor.std``.
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
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in ``meta['dataset_meta']``, if there is one for each output."""
        dataset = self.meta.get("dataset_meta")
        names = dataset.get("classes") if isinstance(dataset, dict) else None
        if isinstance(names, (list, tuple)) and len(names) == self.architecture.num_classes:
            return tuple(str(name) for name in names)
        return None

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
    out_indices: Sequence[int] = (LAST_STAGE,),
) -> Checkpoint:
    """Load a RIFormer checkpoint of any form without executing anything in it.

    Args:
        path: mmengine's training checkpoint, a published one, or a bare state dict.
        weights: ``AVERAGED`` or ``RAW`` where the file holds both; None takes what mmpretrain
            would (the average, where there is one).
        out_indices: Positions in ``backbone.network`` whose norms are kept where the file holds them. Class
            scores need the last stage's alone, which must be there.

    Raises:
        CheckpointUnreadableError: The file is missing, empty, truncated or not a PyTorch checkpoint.
        CheckpointUnsafeError: The file names code outside the training frameworks.
        NotRIFormerError: The weights are another architecture's.
        CheckpointKeysError: Keys are missing, unexpected, mis-shaped, or mix both forms.
        CheckpointValuesError: A weight is NaN, infinite or not a floating-point tensor.
        CheckpointMismatchError: ``weights`` asks for a set that the file does not hold, or the stored
            config has settings that are not computed here.
        OptionError: ``weights`` is neither ``averaged`` nor ``raw``.
    """
    path = Path(path)
    wanted = _wanted(weights)
    before = _signature(path)
    content = read_checkpoint(path)
    if not isinstance(content, dict):
        raise CheckpointUnreadableError(
            f"{path} holds a {type(content).__name__}; a checkpoint dictionary or state dict was expected."
        )
    raw, taken = _choose(path, content, wanted)
    found = _strip_prefixes(raw)
    extra = {key: found.pop(key) for key in list(found) if key.startswith("data_preprocessor.")}
    losses = [key for key in found if key.startswith(_LOSS)]
    for key in losses:
        del found[key]
    unused = [key for key in found if (norm := _NORM.fullmatch(key)) and int(norm[1]) not in out_indices]
    for key in unused:
        del found[key]
    form = recognise_form(path, found)
    architecture = recognise_architecture(path, found)
    meta = _plain(content.get("meta"))
    meta = meta if isinstance(meta, dict) else {}
    config = meta.get("cfg") if isinstance(meta.get("cfg"), str) else None
    check_settings(path, found, config, architecture)
    state, odd = _read_values(found)
    held = {int(norm[1]) for key in found if (norm := _NORM.fullmatch(key))}
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
    digest = sha256_of(path)
    if _signature(path) != before:
        raise CheckpointUnreadableError(
            f"{path} was changed while it was being read.",
            remedy="Training may be writing it; export a checkpoint that is finished.",
        )
    _check_published_name(path, digest)
    return Checkpoint(
        path=path,
        sha256=digest,
        architecture=architecture,
        form=form,
        weights=taken,
        state=state,
        stored_dtypes=tuple(dtypes),
        meta=meta,
        mean=_channel_values(extra.get("data_preprocessor.mean", kept.get("mean"))),
        std=_channel_values(extra.get("data_preprocessor.std", kept.get("std"))),
        notes=(
            *(f"left out, since only training uses it: {key}" for key in losses),
            *(f"left out, since no class score depends on it: {key}" for key in unused),
        ),
    )


def _wanted(weights: WeightSet | str | None) -> WeightSet | None:
    if weights is None:
        return None
    if weights not in (WeightSet.AVERAGED, WeightSet.RAW):
        raise OptionError(f"weights are {WeightSet.AVERAGED} or {WeightSet.RAW}, got {str(weights)!r}.")
    return WeightSet(weights)


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written; None where it cannot be asked for."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _choose(
    path: Path, content: Mapping[Any, Any], wanted: WeightSet | None
) -> tuple[Mapping[Any, Any], WeightSet]:
    """The state dict to use, and which one that is."""
    main: Mapping[Any, Any] = content
    for name in _WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, dict):
            main = inner
            break
    other = content.get("ema_state_dict")
    if not isinstance(other, dict) or not other:
        if wanted in (WeightSet.AVERAGED, WeightSet.RAW):
            raise CheckpointMismatchError(
                f"{path} holds one set of weights; no moving average was stored beside it.",
                remedy="Leave --weights away.",
            )
        return main, WeightSet.ONLY
    if wanted is WeightSet.RAW:
        # EMAHook swaps the two on saving: the raw weights are under the average's name.
        return {key: value for key, value in other.items() if key != "steps"}, WeightSet.RAW
    if wanted is None:
        _LOG.info("%s holds averaged and raw weights; the averaged ones are taken", path)
    return main, WeightSet.AVERAGED


def _strip_prefixes(state: Mapping[Any, Any]) -> dict[str, Any]:
    found = {str(key): value for key, value in state.items()}
    while True:
        for prefix in _PREFIXES:
            if found and all(key.startswith(prefix) for key in found):
                found = {key.removeprefix(prefix): value for key, value in found.items()}
                break
        else:
            return found


def _read_values(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors as contiguous float32, and a sentence on each that holds no finite numbers."""
    read, problems = {}, []
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue  # the check of the keys says so
        if value.dtype not in _ACCEPTED or value.layout is not torch.strided or value.is_meta:
            problems.append(f"{key}: {value.dtype}, {value.layout}; expected a dense floating-point tensor")
            continue
        narrow = value.detach().to(torch.float32).contiguous()
        bad = int((~torch.isfinite(narrow)).sum())
        if bad:
            kinds = [
                kind
                for kind, found in (("NaN", torch.isnan(narrow)), ("infinite", torch.isinf(narrow)))
                if bool(found.any())
            ]
            problems.append(f"{key}: {bad} of {narrow.numel()} values are {' or '.join(kinds)}")
        read[key] = narrow
    return read, problems


def _channel_values(value: Any) -> tuple[float, float, float] | None:
    """Three finite numbers, from a tensor of training or from what this toolkit stored."""
    numbers = value.flatten().tolist() if isinstance(value, Tensor) else value
    if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
        return None
    if not all(isinstance(item, (int, float)) and math.isfinite(item) for item in numbers):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _check_published_name(path: Path, digest: str) -> None:
    """Say so where a file bears the name of a published one and is not it."""
    for variant in VARIANTS.values():
        if path.name == variant.file_name and not digest.startswith(variant.sha256_prefix):
            _LOG.warning(
                "%s is not the published file of that name: its sha256 begins %s, not %s; it was changed, "
                "or the download was damaged",
                path,
                digest[:8],
                variant.sha256_prefix,
            )


def _plain(value: Any, depth: int = 0) -> Any:
    """The part of a value that is plain data; the rest, and what is nested absurdly deep, is left out."""
    if depth > _DEEPEST:
        return _DROPPED
    if isinstance(value, dict):
        kept = {key: _plain(item, depth + 1) for key, item in value.items() if isinstance(key, (str, int))}
        return {key: item for key, item in kept.items() if item is not _DROPPED}
    if isinstance(value, (list, tuple)):
        items = [item for item in (_plain(part, depth + 1) for part in value) if item is not _DROPPED]
        return items if isinstance(value, list) else tuple(items)
    return value if value is None or isinstance(value, (bool, int, float, str, bytes)) else _DROPPED


_DEEPEST = 32
_DROPPED = object()


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
