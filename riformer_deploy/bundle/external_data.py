"""Whether an ONNX file holds all of its weights: those in another file are covered by no hash of a bundle.

Read from the file's bytes, since what runs an artifact needs no ``onnx``; only the headers of messages
are looked at (https://protobuf.dev/programming-guides/encoding, field numbers of ``onnx.proto``).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from riformer_deploy.common.files import open_regular

# Message -> field number -> message in that field. Only what leads to tensors.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

MOST_FIELDS = 5_000_000
"""The largest published model has 5,000 nodes and 100,000 fields; a file with more is refused."""
_DEEPEST = 64


class ExternalDataError(ValueError):
    """An ONNX file refers to another file, or cannot be told not to."""


def refuse_external_data(path: Path) -> None:
    """See that an ONNX file holds all of its tensors.

    Args:
        path: The file.

    Raises:
        ExternalDataError: A tensor lies in another file; or the file is not ONNX, nests messages deeper than
            64, or has more than ``MOST_FIELDS`` fields.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ExternalDataError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk(data, size)


def _walk(data: mmap.mmap, size: int) -> None:
    seen = 0
    messages = [("Model", 0, size, 0)]
    while messages:
        kind, start, end, depth = messages.pop()
        if depth > _DEEPEST:
            raise ExternalDataError(f"its messages are nested deeper than {_DEEPEST}")
        for number, wire, begin, stop in _fields(data, start, end):
            seen += 1
            if seen > MOST_FIELDS:
                raise ExternalDataError(f"it has more than {MOST_FIELDS:,} fields")
            if kind == "Tensor":
                located = number == _DATA_LOCATION and wire == _VARINT and _varint(data, begin, stop)[0] != 0
                if located or (number == _EXTERNAL_DATA and wire == _BYTES):
                    raise ExternalDataError("a tensor of it lies in another file (ONNX external data)")
            inner = _FIELDS[kind].get(number)
            if inner is not None and wire == _BYTES:
                messages.append((inner, begin, stop, depth + 1))


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and first and last place of the value, of every field of a message."""
    place = start
    while place < end:
        key, place = _varint(data, place, end)
        number, wire = key >> 3, key & 7
        begin = place
        if wire == _VARINT:
            _, place = _varint(data, place, end)
        elif wire == _BYTES:
            length, begin = _varint(data, place, end)
            place = begin + length
        elif wire in (_FIXED32, _FIXED64):
            place += 4 if wire == _FIXED32 else 8
        else:  # groups, which ONNX does not have
            raise ExternalDataError("it is not an ONNX file")
        if place > end or number == 0:
            raise ExternalDataError("it is not an ONNX file, or cut off")
        yield number, wire, begin, place


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place after it."""
    value = 0
    for index, byte in enumerate(data[place : min(place + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise ExternalDataError("it is not an ONNX file, or cut off")
