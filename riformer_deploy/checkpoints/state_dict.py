"""What a state dict and the data beside it hold, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from riformer_deploy.checkpoints.placeholders import UnusableTensor

_ACCEPTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DEEPEST = 32
_MOST_VALUES = 1_000_000
_DROPPED = object()


def read_values(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors as contiguous float32 of their own, and a sentence on each that holds no finite numbers.

    They are copies: what was read are views of the whole file, which is not kept for them.
    """
    read, problems = {}, []
    for key, value in state.items():
        if isinstance(value, UnusableTensor):
            problems.append(f"{key}: {value.stands_for}, {value.why}; expected a dense floating-point tensor")
            continue
        if not isinstance(value, Tensor):
            continue  # the check of the keys says so
        if value.dtype not in _ACCEPTED or value.layout is not torch.strided or value.is_meta:
            problems.append(f"{key}: {value.dtype}, {value.layout}; expected a dense floating-point tensor")
            continue
        narrow = value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
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


def channel_values(value: Any) -> tuple[float, float, float] | None:
    """Three finite numbers, from a tensor of training or from what this toolkit stored."""
    numbers = value.flatten().tolist() if isinstance(value, Tensor) and value.numel() == 3 else value
    if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
        return None
    if not all(isinstance(item, (int, float)) and math.isfinite(item) for item in numbers):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def plain_data(value: Any) -> Any:
    """The part of a value that is plain data; the rest, and what is nested absurdly deep, is left out.

    Args:
        value: From a checkpoint: parts of it may be shared, and may contain themselves.

    Raises:
        ValueError: It has more than a million parts.
    """
    return _plain(value, 0, iter(range(_MOST_VALUES)))


def _plain(value: Any, depth: int, budget: Iterator[int]) -> Any:
    if next(budget, None) is None:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values")
    if depth > _DEEPEST:
        return _DROPPED
    if isinstance(value, dict):
        kept = {
            key: _plain(item, depth + 1, budget) for key, item in value.items() if isinstance(key, (str, int))
        }
        return {key: item for key, item in kept.items() if item is not _DROPPED}
    if isinstance(value, (list, tuple)):
        items = [item for item in (_plain(part, depth + 1, budget) for part in value) if item is not _DROPPED]
        return items if isinstance(value, list) else tuple(items)
    return value if value is None or isinstance(value, (bool, int, float, str, bytes)) else _DROPPED
