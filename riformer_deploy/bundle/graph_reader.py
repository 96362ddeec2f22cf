"""What an ONNX file holds, read from its bytes before a runtime or a parser of others is given them.

What runs an artifact needs no ``onnx``, and a file that was made to harm is met here first. Only what decides
about bounds is kept (https://protobuf.dev/programming-guides/encoding, field numbers of ``onnx.proto``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.files import read_regular

MOST_FIELDS = 5_000_000
"""The largest published model has 5,000 nodes and 100,000 fields; a file with more is refused."""
MOST_NODES = 50_000
_MOST_BYTES = 2 << 30  # protobuf's own limit
_MOST_NUMBERS = 64
"""Of a constant whose values are read: axes and shapes have a few."""
_MOST_DIMENSIONS = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INT64 = 7
_EXTERNAL = "a tensor of it lies in another file (ONNX external data), which no hash covers"

_PLACES = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8}
"""Field of the value of each kind of attribute: float, int, text, tensor, floats, ints."""
_GRAPHS = (5, 10)
_ABOUT = frozenset({1, 13, 20})  # an attribute's name, documentation and kind

Shape = tuple[int, ...]
_Range = tuple[int, int]
_Fields = dict[int, list["int | _Range"]]
_Value = TypeVar("_Value")


class GraphError(ValueError):
    """A graph that no runtime is given."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A constant of the graph.

    Attributes:
        shape: Its sizes.
        numbers: Its values where they are at most 64 of int64; else None.
    """

    shape: Shape
    numbers: tuple[int, ...] | None


AttributeValue = int | tuple[int, ...] | str | StoredTensor | None
"""None stands for floating-point numbers."""


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """A node.

    Attributes:
        operator: With its domain where that is not ONNX's own.
        inputs: Names of values; an empty one stands for an input that is left out.
        outputs: Names of values.
        attributes: By name.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, AttributeValue]


@dataclass(frozen=True, kw_only=True)
class StoredGraph:
    """A graph without values.

    Attributes:
        nodes: In order.
        tensors: Constants by name.
        inputs: Shapes of its inputs by name; None for a size that is not fixed.
    """

    nodes: tuple[GraphNode, ...]
    tensors: dict[str, StoredTensor]
    inputs: dict[str, tuple[int | None, ...]]


def read_model(path: Path) -> bytes:
    """Content of an ONNX file that no bundle vouches for, of at most 2 GiB.

    Raises:
        RuntimeFailureError: It cannot be read.
    """
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as err:
        raise RuntimeFailureError(f"{path} cannot be read: {err.strerror}") from err


def read_graph(content: bytes) -> StoredGraph:
    """The graph of an ONNX file.

    Args:
        content: The file's.

    Raises:
        GraphError: It is no ONNX file, holds a tensor in another file or one of more values than it stores,
            graphs within nodes, functions of its own, training graphs or sparse tensors, or has more fields
            or nodes than are read.
    """
    return _Reader(content).model()


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._seen = 0

    def model(self) -> StoredGraph:
        if not self._content:
            raise GraphError("it is empty")
        model = self._fields((0, len(self._content)))
        self._refuse(model, {20: "a training graph", 25: "functions of its own"})
        graph = self._fields(self._one(model, 7))
        self._refuse(graph, {15: "sparse tensors"})
        if len(graph.get(1, [])) > MOST_NODES:
            raise GraphError(f"it has more than {MOST_NODES:,} nodes")
        tensors = (self._tensor(place) for place in self._ranges(graph, 5))
        return StoredGraph(
            nodes=tuple(self._node(place) for place in self._ranges(graph, 1)),
            tensors=_once(tensors),
            inputs=_once(self._input(place) for place in self._ranges(graph, 11)),
        )

    def _node(self, place: _Range) -> GraphNode:
        node = self._fields(place)
        domain = self._text(node, 7)
        operator = self._text(node, 4)
        return GraphNode(
            operator=operator if domain in ("", "ai.onnx") else f"{domain}.{operator}",
            inputs=tuple(self._decoded(item) for item in self._ranges(node, 1)),
            outputs=tuple(self._decoded(item) for item in self._ranges(node, 2)),
            attributes=_once(self._attribute(item) for item in self._ranges(node, 5)),
        )

    def _attribute(self, place: _Range) -> tuple[str, AttributeValue]:
        fields = self._fields(place)
        name, kind = self._text(fields, 1), self._number(fields, 20)
        if kind in _GRAPHS:
            raise GraphError("it holds graphs within nodes, which no graph of this toolkit does")
        if kind not in _PLACES or fields.keys() - _ABOUT - {_PLACES[kind]}:
            raise GraphError(f"its attribute {name} is of no kind that a graph of this toolkit has")
        value: AttributeValue = None
        match kind:
            case 2:
                value = _signed(self._number(fields, 3))
            case 3:
                value = self._text(fields, 4)
            case 4:
                value = self._tensor(self._one(fields, 5))[1]
            case 7:
                value = tuple(map(_signed, self._numbers(fields, 8, _MOST_NUMBERS) or ()))
            case _:  # floating-point numbers, which decide about no size
                pass
        return name, value

    def _tensor(self, place: _Range) -> tuple[str, StoredTensor]:
        tensor = self._fields(place)
        if 13 in tensor or self._number(tensor, 14) != 0:
            raise GraphError(_EXTERNAL)
        name = self._text(tensor, 8)
        dims = self._numbers(tensor, 1, _MOST_DIMENSIONS)
        if dims is None or any(_signed(size) < 0 for size in dims):
            raise GraphError(f"its tensor {name} has no shape of counts")
        count = 1
        for size in dims:
            count *= size
        if count > 8 * (place[1] - place[0]):  # a value has at least one bit
            raise GraphError(f"its tensor {name} states more values than it stores")
        numbers: tuple[int, ...] | None = None
        if self._number(tensor, 2) == _INT64 and count <= _MOST_NUMBERS:
            if 9 in tensor:
                begin, stop = self._one(tensor, 9)
                if stop - begin != 8 * count:
                    raise GraphError(f"its tensor {name} does not store the values that it states")
                numbers = struct.unpack(f"<{count}q", self._content[begin:stop])
            else:
                stored = self._numbers(tensor, 7, _MOST_NUMBERS)
                numbers = None if stored is None else tuple(map(_signed, stored))
        return name, StoredTensor(shape=tuple(dims), numbers=numbers)

    def _input(self, place: _Range) -> tuple[str, tuple[int | None, ...]]:
        info = self._fields(place)
        shape = self._fields(self._one(self._fields(self._one(self._fields(self._one(info, 2)), 1)), 2))
        sizes = [self._fields(item) for item in self._ranges(shape, 1)]
        return self._text(info, 1), tuple(self._number(size, 1) if 1 in size else None for size in sizes)

    def _refuse(self, fields: _Fields, names: dict[int, str]) -> None:
        if found := [names[number] for number in names if number in fields]:
            raise GraphError(f"it holds {found[0]}, which no graph of this toolkit does")

    def _one(self, fields: _Fields, number: int) -> _Range:
        """A message that is there once: protobuf would merge two, and parsers differ in how."""
        found = self._ranges(fields, number)
        if len(found) != 1:
            raise GraphError("it is not an ONNX file, or holds a part of it twice or not at all")
        return found[0]

    def _ranges(self, fields: _Fields, number: int) -> list[_Range]:
        found = [item for item in fields.get(number, []) if isinstance(item, tuple)]
        if len(found) != len(fields.get(number, [])):
            raise GraphError("it is not an ONNX file")
        return found

    def _text(self, fields: _Fields, number: int) -> str:
        return self._decoded(self._one(fields, number)) if number in fields else ""

    def _decoded(self, place: _Range) -> str:
        return self._content[place[0] : place[1]].decode("utf-8", "replace")

    def _number(self, fields: _Fields, number: int) -> int:
        """A number that is there at most once; 0, which protobuf leaves out, where it is not."""
        match fields.get(number, [0]):
            case [int() as value]:
                return value
            case _:
                raise GraphError("it is not an ONNX file")

    def _numbers(self, fields: _Fields, number: int, most: int) -> list[int] | None:
        """Repeated numbers, packed or not; None where they are more than ``most``."""
        found: list[int] = []
        for item in fields.get(number, []):
            if isinstance(item, int):
                found.append(item)
            else:
                place, stop = item
                while place < stop and len(found) <= most:
                    value, place = _varint(self._content, place, stop)
                    found.append(value)
            if len(found) > most:
                return None
        return found

    def _fields(self, place: _Range) -> _Fields:
        """The fields of a message: numbers, and where the content of all else begins and ends."""
        content, (at, end) = self._content, place
        found: _Fields = {}
        while at < end:
            self._seen += 1
            if self._seen > MOST_FIELDS:
                raise GraphError(f"it has more than {MOST_FIELDS:,} fields")
            key, at = _varint(content, at, end)
            number, wire, begin = key >> 3, key & 7, at
            value: int | _Range
            if wire == _VARINT:
                value, at = _varint(content, at, end)
            elif wire == _BYTES:
                length, begin = _varint(content, at, end)
                at = begin + length
                value = begin, at
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
                value = begin, at
            else:  # groups, which ONNX does not have
                raise GraphError("it is not an ONNX file")
            if at > end or number == 0:
                raise GraphError("it is not an ONNX file, or cut off")
            found.setdefault(number, []).append(value)
        return found


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place after it."""
    value = 0
    for index, byte in enumerate(content[place : min(place + 10, end)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & (1 << 64) - 1, place + index + 1
    raise GraphError("it is not an ONNX file, or cut off")


def _once(pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    found: dict[str, _Value] = {}
    for name, value in pairs:
        if name in found:
            raise GraphError(f"it holds {name} twice")
        found[name] = value
    return found


def _signed(value: int) -> int:
    """A 64-bit number in two's complement, as protobuf writes negative ones."""
    return value - (1 << 64) if value >= 1 << 63 else value
