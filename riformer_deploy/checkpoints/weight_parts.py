"""The parts of a checkpoint's content that are a RIFormer, or a piece of one, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from riformer_deploy.common.errors import CheckpointKeysError

_AVERAGES = frozenset({"state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model", "averaged_model"})
_BOOKKEEPING = frozenset({"n_averaged", "steps"})  # of SWA and of mmengine's averages
_ROOT = re.compile(
    r"(?P<prefix>(?:.*?\.)??)(?P<backbone>backbone\.)?network\.[0246]\.\d{1,3}\."
    r"(?:token_mixer\.affine|norm_reparam)\."
)
_DEEPEST, _MOST = 8, 100_000
_LONGEST_KEY, _MOST_ROOTS = 512, 100


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity: tensors do not compare
class Part:
    """Keys of one mapping that make a RIFormer, or a part of one.

    Attributes:
        location: Names of the mappings around it, then the common prefix of its keys.
        state: Values by the keys behind that prefix.
        meta: The ``meta`` stored beside it, or around it; None where there is none.
        beside: Tensors of the same mapping under other prefixes.
        counted: Whether the mapping counts averaging steps, as those of mmengine's EMA hook do.
        headless: Whether the keys are a bare backbone's.
    """

    location: tuple[str, ...]
    state: dict[str, Any]
    meta: object
    beside: tuple[str, ...] = ()
    counted: bool = False
    headless: bool = False

    @property
    def name(self) -> str:
        """What ``--key`` calls it."""
        return ".".join(self.location)

    @property
    def averaged(self) -> bool:
        """Whether it goes by one of the usual names of a moving average."""
        return not _AVERAGES.isdisjoint(self.location)


def find_parts(path: Path, content: object) -> Iterator[Part]:
    """Every RIFormer, and every part of one, that is anywhere in the content.

    Looked at are keys of at most 512 characters, in mappings at most eight deep, of which there may be
    100,000; raises CheckpointKeysError where one mapping holds more than 100 RIFormers.
    """
    for location, mapping, meta in _mappings(content):
        keys: dict[str, Any] = {}
        for key in mapping:
            if not isinstance(key, str) or len(key) > _LONGEST_KEY:
                continue  # no tensor of a RIFormer is called that, whatever is before its name
            plain = ".".join(word for word in key.split(".") if word != "_orig_mod")  # torch.compile's
            if plain in keys:
                raise CheckpointKeysError(
                    f"{path} holds {plain} twice{f' under {location[-1]}' if location else ''}: "
                    f"as {keys[plain]} and as {key}.",
                    remedy="Such a file comes of merging two state dicts; give the training checkpoint.",
                )
            keys[plain] = key
        roots = {(match["prefix"], match["backbone"] is None) for key in keys if (match := _ROOT.match(key))}
        if len(roots) > _MOST_ROOTS:
            raise CheckpointKeysError(
                f"{path} holds {len(roots):,} RIFormers beside each other; at most {_MOST_ROOTS} are looked at.",
                remedy="Give a file that holds one, such as what torch.save(model.state_dict(), FILE) writes.",
            )
        for prefix, headless in sorted(roots):
            others = tuple(other for other, _ in roots if other != prefix)
            inner = tuple(other for other in others if other.startswith(prefix))
            own = [key for key in keys if key.startswith(prefix) and not key.startswith(inner)]
            teachers = [key for key in own if not prefix and key.startswith("teacher")]
            state = {key.removeprefix(prefix): mapping[keys[key]] for key in own if key not in teachers}
            strange = [key for key in keys if not key.startswith((prefix, *others))]
            yield Part(
                location=(*location, *prefix.removesuffix(".").split(".")) if prefix else location,
                state={key: value for key, value in state.items() if key not in _BOOKKEEPING},
                meta=meta,
                beside=tuple(
                    key
                    for key in (*teachers, *strange)
                    if key not in _BOOKKEEPING and isinstance(mapping[keys[key]], Tensor)
                ),
                counted="steps" in keys,
                headless=headless,
            )


def _mappings(content: object) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any], object]]:
    """Every mapping in the content, where it is, and the ``meta`` that belongs to it."""
    waiting: list[tuple[tuple[str, ...], object, object]] = [((), content, None)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST:
        location, value, meta = waiting.pop()
        if id(value) in seen or len(location) > _DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            meta = value["meta"] if isinstance(value.get("meta"), dict) else meta
            yield location, value, meta
            inner = [
                ((*location, key), item, meta)
                for key, item in value.items()
                if isinstance(key, str) and len(key) <= _LONGEST_KEY
            ]
        elif isinstance(value, (list, tuple)):
            inner = [((*location, str(number)), item, meta) for number, item in enumerate(value)]
        else:
            continue
        waiting += [entry for entry in reversed(inner) if isinstance(entry[1], (dict, list, tuple))]
