"""What a state dict and the data beside it hold, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_ACCEPTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DEEPEST = 32
_DROPPED = object()


def read_values(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
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


def channel_values(value: Any) -> tuple[float, float, float] | None:
    """Three finite numbers, from a tensor of training or from what this toolkit stored."""
    numbers = value.flatten().tolist() if isinstance(value, Tensor) else value
    if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
        return None
    if not all(isinstance(item, (int, float)) and math.isfinite(item) for item in numbers):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def plain_data(value: Any, depth: int = 0) -> Any:
    """The part of a value that is plain data; the rest, and what is nested absurdly deep, is left out."""
    if depth > _DEEPEST:
        return _DROPPED
    if isinstance(value, dict):
        kept = {
            key: plain_data(item, depth + 1) for key, item in value.items() if isinstance(key, (str, int))
        }
        return {key: item for key, item in kept.items() if item is not _DROPPED}
    if isinstance(value, (list, tuple)):
        items = [item for item in (plain_data(part, depth + 1) for part in value) if item is not _DROPPED]
        return items if isinstance(value, list) else tuple(items)
    return value if value is None or isinstance(value, (bool, int, float, str, bytes)) else _DROPPED
