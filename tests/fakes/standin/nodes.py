"""Nodes of a graph, and the register of the operators that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from torch import Tensor

Result = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator of a graph.

    Attributes:
        name: Its name in the graph.
        op: ONNX's name of the operator.
        inputs: Names of its inputs; empty where an optional one is left out.
        outputs: Names of its outputs.
        attributes: By name, as :func:`onnx.helper.get_attribute_value` gives them.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, proto: onnx.NodeProto) -> Node:
        """Read one."""
        return cls(
            name=proto.name,
            op=proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}",
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute},
        )

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or the default that ONNX gives it."""
        return self.attributes.get(name, default)


Operator = Callable[..., Result]
OPERATORS: dict[str, Operator] = {}
"""By ONNX's name; each takes the node and its inputs, None where one is left out."""


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register an operator under its names."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def ints(value: Tensor | None) -> list[int]:
    """What shape arithmetic gave; it is on the host."""
    assert value is not None
    assert value.device.type == "cpu", "shapes are computed on the host"
    return [int(item) for item in value.reshape(-1).tolist()]
