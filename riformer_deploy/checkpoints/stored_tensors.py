"""Tensors from the storages of a checkpoint file: views of the bytes that were read, never of other memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riformer_deploy.checkpoints.pickle_values import PickleDamageError, as_key
from riformer_deploy.checkpoints.placeholders import GlobalName, Placeholder, UnusableTensor

_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
_MODULES = ("torch", "torch.cuda", "torch.storage")
_REBUILT = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"})
_WRAPPED = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
_TENSORS = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter"})
_MOST_DIMENSIONS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage:
    """A storage of the file.

    Attributes:
        dtype: Of its values.
        data: Its bytes; of a file from before PyTorch 1.6 they are filled in after its pickle was read.
    """

    dtype: torch.dtype
    data: memoryview

    @property
    def count(self) -> int:
        """How many values it holds."""
        return len(self.data) // self.dtype.itemsize


def storage_dtype(kind: Any) -> torch.dtype | None:
    """The type of the values of a storage class, which a persistent id names; None where it is not known."""
    module, _, name = kind.stands_for.rpartition(".") if isinstance(kind, GlobalName) else ("", "", "")
    return _STORAGES.get(name) if module in _MODULES else None


def is_known(name: str) -> bool:
    """Whether a global is one of PyTorch's own that stored tensors and their surroundings consist of.

    They are names here, too: what is not rebuilt below becomes a placeholder.
    """
    module, _, last = name.rpartition(".")
    return (
        name in {"collections.OrderedDict", "_codecs.encode", "builtins.bytearray", "torch.Size"}
        or name in {"torch.device", "torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2"}
        or name in _TENSORS
        or (module == "torch._utils" and last.startswith("_rebuild_"))
        or (module == "torch" and (isinstance(getattr(torch, last, None), (torch.dtype, torch.qscheme))))
        or (
            module in {*_MODULES, "torch.sparse", "torch.cuda.sparse"}
            and last.isidentifier()
            and last.endswith(("Storage", "Tensor"))
        )
    )


def call_by_name(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call in a checkpoint's pickle stands for: a tensor, plain data, or a placeholder.

    Args:
        name: The full name of what is called; nothing of that name is.
        arguments: Plain data, tensors, storages and placeholders.

    Raises:
        PickleDamageError: A tensor is described by something else than a storage, sizes and strides.
    """
    module, _, last = name.rpartition(".")
    result: Any = Placeholder(name)
    match name, arguments:
        case "collections.OrderedDict" | "collections.Counter" | "collections.defaultdict", _:
            result = _dictionary(arguments)
        case "addict.addict.Dict" | "mmengine.config.config.ConfigDict", _:
            result = _dictionary(arguments)
        case "collections.deque", ([*items], *_):
            result = items
        case "collections.deque", _:
            result = []
        case "builtins.set", ([*items],):
            result = set(map(as_key, items))
        case "torch.Size", (tuple() as size,):
            result = size
        case "_codecs.encode", (str() as text, "latin1" | "latin-1"):
            result = text.encode("latin-1", "replace")
        case "torch._tensor._rebuild_from_type_v2", (
            GlobalName() as function,
            GlobalName() as kind,
            tuple() as inner,
            _,
        ):
            if kind.stands_for in _TENSORS and function.stands_for != name:
                result = call_by_name(function.stands_for, inner)
        case "torch.nn.parameter.Parameter", (Tensor() | UnusableTensor() as tensor, *_):
            result = tensor
        case _ if module == "torch._utils" and last in _WRAPPED and arguments:
            result = arguments[0]
        case _ if module == "torch._utils" and last in _REBUILT:
            result = _rebuilt(last, arguments)
        case _ if module.partition(".")[0] == "torch" and (
            last.endswith("Tensor") or last.startswith("_rebuild_")
        ):
            result = UnusableTensor(name, "no dense tensor whose values a storage of the file holds")
    return result


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """With the pairs that Python 2 gives when it is made; others are set afterwards."""
    match arguments:
        case ([*pairs],) if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            return {as_key(key): value for key, value in pairs}
        case (*_, dict() as content):
            return dict(content)
    return {}


def _rebuilt(function: str, arguments: tuple[Any, ...]) -> Tensor | UnusableTensor:
    match arguments:
        case (Storage() as storage, int() as offset, tuple() as size, tuple() as stride, *rest):
            pass
        case (Placeholder() as kind, *_):
            return UnusableTensor(
                "torch.Tensor", f"its values are of a kind that is not read: {kind.stands_for}"
            )
        case _:
            raise PickleDamageError("its pickle describes a tensor by no storage, sizes and strides")
    dtype, metadata = storage.dtype, rest[2] if len(rest) > 2 else None
    if function == "_rebuild_tensor_v3":
        named = rest[2] if len(rest) > 2 else None
        found = named.stands_for.removeprefix("torch.") if isinstance(named, GlobalName) else ""
        known = getattr(torch, found, None)
        if not isinstance(known, torch.dtype):
            raise PickleDamageError("its pickle describes a tensor of an unknown type")
        dtype, metadata = known, rest[3] if len(rest) > 3 else None
    count = len(storage.data) // dtype.itemsize
    why = _unfit(count, offset, size, stride)
    if why is None and metadata:
        why = "it is stored as the negative or the conjugate of its values"
    if why is not None:
        return UnusableTensor("torch.Tensor", why)
    if 0 in size:
        return torch.empty(size, dtype=dtype)
    begin = offset * dtype.itemsize
    return _view(storage.data[begin : begin + _span(size, stride) * dtype.itemsize], dtype, size, stride)


def _span(size: Sequence[int], stride: Sequence[int]) -> int:
    """How many values lie from the first to the last, both included."""
    return sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1


def _unfit(count: int, offset: int, size: Sequence[Any], stride: Sequence[Any]) -> str | None:
    """Why a tensor is not values of a storage of ``count``, each its own; None where it is."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
        return f"it has {len(size):,} sizes and {len(stride):,} strides"
    if any(type(number) is not int or not 0 <= number < 2**62 for number in numbers):
        return "its sizes, strides and offset are not all counts"
    if 0 in size:
        return None
    if offset + _span(size, stride) > count:
        return f"its {list(size)} values reach beyond its storage, which holds {count:,}"
    least = 1
    for step, length in sorted(
        (step, length) for length, step in zip(size, stride, strict=True) if length > 1
    ):
        if step < least:
            return f"its strides {list(stride)} use values of its storage more than once"
        least = step * (length - 1) + least
    return None


def _view(data: memoryview, dtype: torch.dtype, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    flat = torch.frombuffer(data, dtype=torch.uint8)
    if flat.data_ptr() % dtype.itemsize:
        flat = flat.clone()  # a file may begin its values anywhere
    return flat.view(dtype).as_strided(tuple(size), tuple(stride))
