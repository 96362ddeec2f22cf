"""Types of tensors: ONNX's numbers, PyTorch's, TensorRT's names, and how memory is described."""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
"""PyTorch's types by ONNX's numbers."""

NAMES: dict[torch.dtype, str] = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "FP8",
    torch.int8: "INT8",
    torch.uint8: "UINT8",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.bool: "BOOL",
}
"""TensorRT's names; float64 has none."""


def dtype_of(number: int) -> torch.dtype:
    """PyTorch's type of one of ONNX's numbers.

    Raises:
        ValueError: It is not one of :data:`DTYPES`.
    """
    if number not in DTYPES:
        raise ValueError(f"{TensorProto.DataType.Name(number)} is no type that is known here")
    return DTYPES[number]


def tensor_of(proto: onnx.TensorProto) -> torch.Tensor:
    """A constant of a graph, on the host.

    Args:
        proto: As the graph holds it.

    Raises:
        ValueError: Its type is not one of :data:`DTYPES`.
    """
    dtype = dtype_of(proto.data_type)
    found = onnx.numpy_helper.to_array(proto)
    if dtype in (torch.bfloat16, torch.float8_e4m3fn):  # from ml_dtypes, whose types PyTorch does not take
        if found.dtype.itemsize != dtype.itemsize:  # onnx before 1.19 gives float32
            return torch.from_numpy(found).to(dtype)
        bits = found.view("int16" if dtype is torch.bfloat16 else "uint8")
        return torch.from_numpy(bits.copy()).view(dtype).reshape(tuple(proto.dims))
    return torch.from_numpy(found.copy()).reshape(tuple(proto.dims))
