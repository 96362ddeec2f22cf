"""ONNX operators that make or change shapes; what they read shapes of is on the host."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.fakes.standin.nodes import Node, ints, operator


@operator("Shape")
def _shape(node: Node, value: Tensor) -> Tensor:
    return torch.tensor(list(value.shape)[node.get("start", 0) : node.get("end", None)], dtype=torch.int64)


@operator("Reshape")
def _reshape(node: Node, value: Tensor, shape: Tensor) -> Tensor:
    wanted = ints(shape)
    if not node.get("allowzero", 0):
        wanted = [value.shape[index] if size == 0 else size for index, size in enumerate(wanted)]
    return value.reshape(wanted)


@operator("Flatten")
def _flatten(node: Node, value: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    return value.reshape(math.prod(value.shape[:axis]), math.prod(value.shape[axis:]))


@operator("Transpose")
def _transpose(node: Node, value: Tensor) -> Tensor:
    return value.permute(node.get("perm", list(range(value.ndim))[::-1]))


@operator("Squeeze")
def _squeeze(_node: Node, value: Tensor, axes: Tensor | None = None) -> Tensor:
    return value.squeeze() if axes is None else value.squeeze(tuple(ints(axes)))


@operator("Unsqueeze")
def _unsqueeze(_node: Node, value: Tensor, axes: Tensor) -> Tensor:
    chosen = ints(axes)
    ndim = value.ndim + len(chosen)
    for axis in sorted(axis % ndim for axis in chosen):
        value = value.unsqueeze(axis)
    return value


@operator("Expand")
def _expand(_node: Node, value: Tensor, shape: Tensor) -> Tensor:
    wanted = torch.broadcast_shapes(value.shape, tuple(ints(shape)))  # type: ignore[no-untyped-call]
    return value.expand(wanted)


@operator("Concat")
def _concat(node: Node, *values: Tensor) -> Tensor:
    return torch.cat(values, dim=node.attributes["axis"])


@operator("Gather")
def _gather(node: Node, value: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % value.ndim
    size = value.shape[axis]
    flat = indices.reshape(-1)
    found = value.index_select(axis, torch.where(flat < 0, flat + size, flat))
    return found.reshape(*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :])


@operator("Slice")
def _slice(
    _node: Node,
    value: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = ints(starts), ints(ends)
    chosen = list(range(len(begin))) if axes is None else ints(axes)
    stride = [1] * len(begin) if steps is None else ints(steps)
    assert min(stride) > 0, "PyTorch slices forward only"
    index = [slice(None)] * value.ndim
    for axis, *parts in zip(chosen, begin, end, stride, strict=True):
        index[axis] = slice(*parts)
    return value[tuple(index)]
