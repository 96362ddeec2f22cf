"""Reads the safetensors format: a length, a JSON header, and the tensors' bytes behind it.

The format is read here, without the package of that name, so that a checkpoint is read wherever the toolkit
is installed: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riformer_deploy.checkpoints.allowlists import shown
from riformer_deploy.common.errors import CheckpointUnreadableError
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.common.serialization import parse_json

_MOST_HEADER_BYTES = 16 << 20  # 100 times that of the largest variant's training checkpoint
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 16
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def is_safetensors(data: bytes | bytearray) -> bool:
    """Whether a file begins as the format does, whatever its name.

    Args:
        data: Its content, or the beginning of it.
    """
    return len(data) >= 9 and data[8] == ord("{") and int.from_bytes(data[:8], "little") < _MOST_HEADER_BYTES


def read_safetensors(path: Path, data: bytearray) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Args:
        path: Named in errors.
        data: The file's content; the header has at most 16 MiB and names at most 100,000 tensors.

    Raises:
        CheckpointUnreadableError: The file is cut short, or its header does not describe its content.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    if begin > len(data):
        raise _damaged(path, f"its header should have {begin - 8:,} bytes; the file has {len(data):,}")
    try:
        header = parse_json(bytes(data[8:begin]).decode("utf-8"))
    except ValueError as err:
        raise _damaged(path, f"its header is not JSON: {reason_of(err)}") from err
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > _MOST_TENSORS:
        raise _damaged(path, f"its header names {len(header):,} tensors; at most {_MOST_TENSORS:,} are read")
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        start, stop = _offsets(path, name, entry)
        if start != end or begin + stop > len(data):
            raise _damaged(path, f"{name} lies at bytes {start:,} to {stop:,}, where it cannot be")
        tensors[name] = _tensor(path, name, entry, data, (begin + start, stop - start))
        end = stop
    if begin + end != len(data):
        raise _damaged(path, f"{len(data) - begin - end:,} bytes at its end belong to no tensor")
    return tensors


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    match entry:
        case {"data_offsets": [int() as start, int() as stop]} if 0 <= start <= stop:
            return start, stop
        case _:
            raise _damaged(path, f"the entry of {name} says no place in the file")


def _tensor(path: Path, name: str, entry: Any, data: bytearray, place: tuple[int, int]) -> Tensor:
    dtype, shape = _DTYPES.get(str(entry.get("dtype"))), entry.get("shape")
    counts = isinstance(shape, list) and all(type(n) is int and 0 <= n < 2**62 for n in shape)
    if dtype is None or not counts or len(shape) > _MOST_DIMENSIONS:
        raise _damaged(path, f"{name} is {shown(entry.get('dtype'))} {shown(shape)}, which is not known")
    offset, size = place
    if prod(shape) * dtype.itemsize != size:
        raise _damaged(path, f"{name}, {entry['dtype']} {shape}, does not fit its {size:,} bytes")
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    # a copy, since a tensor's bytes may lie at any address in the file
    flat = torch.frombuffer(data, dtype=torch.uint8, count=size, offset=offset).clone()
    return flat.view(dtype).reshape(shape)


def _damaged(path: Path, why: str) -> CheckpointUnreadableError:
    return CheckpointUnreadableError(
        f"{path} is damaged or not a safetensors file: {why}.",
        remedy="Get the file again from where it came, and compare its size or sha256.",
    )
