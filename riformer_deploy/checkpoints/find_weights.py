"""Finds the one RIFormer in what a checkpoint file holds, whatever keys and prefixes are around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from riformer_deploy.checkpoints.detect import recognise_architecture, recognise_form
from riformer_deploy.checkpoints.placeholders import Placeholder
from riformer_deploy.checkpoints.weight_parts import Part, find_parts
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    CheckpointError,
    CheckpointKeysError,
    CheckpointMismatchError,
    CheckpointUnreadableError,
)

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_USUAL = re.compile(r"(state_dict|model_state_dict|model)?(\.?module)*")


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """The state dict to load.

    Attributes:
        state: Values by mmpretrain's keys.
        taken: Which set of weights it is.
        meta: The ``meta`` stored beside it, or around it; None where there is none.
        notes: Where it was, and what beside it was left out.
    """

    state: dict[str, Any]
    taken: WeightSet
    meta: object
    notes: tuple[str, ...]


def find_weights(
    path: Path, content: object, *, wanted: WeightSet | None, key: str | None = None
) -> FoundWeights:
    """The RIFormer in a checkpoint's content.

    Args:
        path: Named in errors.
        content: What the file holds.
        wanted: Which set, where the file holds a moving average beside the raw weights.
        key: Where to look: names of keys joined by dots, such as ``student`` or ``state_dict.student``.

    Raises:
        CheckpointUnreadableError: The file holds no mapping, or a whole pickled module.
        CheckpointKeysError: It holds a part of a RIFormer, or several and nothing tells which is meant.
        CheckpointMismatchError: What ``wanted`` or ``key`` asks for is not in it.
    """
    parts = list(find_parts(path, content))
    if not parts and key is None:
        return _unrecognised(path, content)
    incomplete = {part.name: why for part in parts if (why := _incomplete(path, part)) is not None}
    whole = [part for part in parts if part.name not in incomplete]
    chosen = _matching(path, parts, key) if key is not None else whole or parts
    if whole and any(part in whole for part in chosen):
        chosen = [part for part in chosen if part in whole]
    left_out = [f"{name or 'the top level'}: {why}" for name, why in incomplete.items()]
    part, taken = _one_of(path, chosen, whole, wanted, left_out)
    if part.headless:
        raise CheckpointKeysError(
            f"{path} holds a RIFormer backbone without a head{_under(part)}.",
            details=left_out if len(parts) > 1 else (),
            remedy="Give the checkpoint of the classifier (backbone, neck and head), as training wrote it.",
        )
    return FoundWeights(
        state=part.state, taken=taken, meta=part.meta, notes=_notes(part, taken, parts, left_out)
    )


def _incomplete(path: Path, part: Part) -> str | None:
    """Why a part is no whole RIFormer; None where every tensor is there."""
    if part.headless:
        return "a backbone without a head"
    try:
        form = recognise_form(path, part.state)
        shapes = recognise_architecture(path, part.state).shapes(form)
    except CheckpointError as err:
        return "; ".join(err.details) or err.message
    missing = [key for key in shapes if key not in part.state]
    return f"tensors are missing: {len(missing)}, such as {missing[0]}" if missing else None


def _matching(path: Path, parts: list[Part], key: str) -> list[Part]:
    """Those that a key means: the one of exactly that name, or all with these words in their names."""
    exact = [part for part in parts if part.name == key]
    words = tuple(key.split("."))
    found = exact or [
        part
        for part in parts
        if any(part.location[n : n + len(words)] == words for n in range(len(part.location)))
    ]
    if not found:
        raise CheckpointMismatchError(
            f"{path} holds no RIFormer under {key!r}.",
            details=[f"it holds one under {part.name or 'no key at all'}" for part in parts],
            remedy="Give --key one of these, or leave it away." if parts else "Leave --key away.",
        )
    return found


def _one_of(
    path: Path, chosen: list[Part], whole: list[Part], wanted: WeightSet | None, left_out: list[str]
) -> tuple[Part, WeightSet]:
    """The one part to take, by its set of weights where there are two sets of one model."""
    if len(chosen) == 2 and chosen[0].averaged != chosen[1].averaged:
        average, raw = sorted(chosen, key=lambda part: not part.averaged)
        if _swapped(average, raw):
            average, raw = raw, average
        return (raw, WeightSet.RAW) if wanted is WeightSet.RAW else (average, WeightSet.AVERAGED)
    if len(chosen) > 1:
        raise CheckpointKeysError(
            f"{path} holds {len(chosen)} RIFormers; which one is meant?",
            details=[part.name or "at the top level" for part in chosen],
            remedy=f"Choose with --key, such as --key {chosen[-1].name}.",
        )
    (part,) = chosen
    taken = WeightSet.ONLY
    partners = [other for other in whole if other.averaged != part.averaged]
    if part in whole and len(partners) == 1:  # --key named one of two sets
        swapped = _swapped(*sorted((part, partners[0]), key=lambda found: not found.averaged))
        taken = WeightSet.AVERAGED if part.averaged != swapped else WeightSet.RAW
    if wanted not in (None, taken):
        raise CheckpointMismatchError(
            f"{path} holds one set of weights{_under(part)}; no other was stored beside it."
            if taken is WeightSet.ONLY
            else f"--key {part.name} names the {taken} weights of {path}; --weights asks for the {wanted}.",
            details=left_out,
            remedy="Leave --weights away.",
        )
    return part, taken


def _swapped(average: Part, raw: Part) -> bool:
    """Whether the raw weights are those under the average's name, as mmengine's EMAHook saves them."""
    wrapped = average.location[-1:] == ("module",)  # mmengine averages a copy of the wrapped model
    return "ema_state_dict" in average.location and (average.counted or wrapped) and not raw.counted


def _under(part: Part) -> str:
    return f" under {part.name}" if part.location else ""


def _notes(part: Part, taken: WeightSet, parts: list[Part], left_out: list[str]) -> tuple[str, ...]:
    notes = []
    others = [other for other in parts if other is not part]
    if taken is not WeightSet.ONLY:
        other = "raw" if taken is WeightSet.AVERAGED else "averaged"
        notes.append(
            f"the file holds averaged and raw weights; the {taken} ones are taken, from "
            f"{part.name or 'the top level'} (--weights {other} takes the others)"
        )
    elif not _USUAL.fullmatch(part.name) or others:
        notes.append(f"the weights were found under {part.name or 'no key at all'}")
    if len(others) > 1 or taken is WeightSet.ONLY:
        notes += [f"left out: another RIFormer, under {other.name or 'no key at all'}" for other in others]
    notes += [f"left out, no whole RIFormer: {text}" for text in left_out if others]
    if part.beside:
        notes.append(f"left out: tensors beside the RIFormer: {len(part.beside)}, such as {part.beside[0]}")
    return tuple(notes)


def _not_a_mapping(path: Path, content: object) -> CheckpointUnreadableError:
    if isinstance(content, Placeholder):
        return _pickled_object(path, content, "it")
    return CheckpointUnreadableError(
        f"{path} holds a {type(content).__name__}; a checkpoint dictionary or state dict was expected."
    )


def _pickled_object(path: Path, value: Placeholder, where: str) -> CheckpointUnreadableError:
    return CheckpointUnreadableError(
        f"{path} holds no state dict: {where} is a whole pickled object, {value.stands_for}.",
        remedy="Load it with the code that it was made with, and save its state_dict(): "
        "torch.save(model.state_dict(), FILE).",
    )


def _unrecognised(path: Path, content: object) -> FoundWeights:
    """Where no block of a RIFormer is: the state dict that the checks are to judge."""
    if not isinstance(content, dict):
        raise _not_a_mapping(path, content)
    inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), content)
    if not any(isinstance(value, Tensor) for value in inner.values()):
        for name, value in content.items():
            if isinstance(value, Placeholder):
                raise _pickled_object(path, value, str(name))
    return FoundWeights(
        state={str(key): value for key, value in inner.items()},
        taken=WeightSet.ONLY,
        meta=content.get("meta"),
        notes=(),
    )
