"""What an ONNX file is."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from riformer_deploy.bundle.artifacts import TensorSpec
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.files import sha256_of
from riformer_deploy.export.onnx_graph import NodeCount, graph_flops, node_counts, opset_of, spec_of


@dataclass(frozen=True, kw_only=True)
class OnnxInspection:
    """An ONNX file.

    Attributes:
        kind: Always ``onnx``.
        path: The file.
        sha256: Of its content.
        size_bytes: Its size.
        producer: Who wrote it.
        opset: Version of the default operator set.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        parameters: Number of floating-point values and of int8 and float8 weights stored.
        flops: Multiply-adds of one image, counted as for checkpoints; None where a shape is unknown.
        nodes: Nodes by type and precision.
        provenance: The file's ``metadata_props``.
    """

    kind: str
    path: str
    sha256: str
    size_bytes: int
    producer: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    flops: int | None
    nodes: tuple[NodeCount, ...]
    provenance: dict[str, str]


def inspect_onnx(path: Path) -> OnnxInspection:
    """What an ONNX file computes and in which types, by its own content.

    Args:
        path: The file.

    Raises:
        RuntimeFailureError: It is no valid ONNX.
    """
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(str(path))
    except Exception as err:  # protobuf's, onnx's and the system's own errors
        raise RuntimeFailureError(f"{path} is not a valid ONNX file: {err}") from err
    kinds = onnx.TensorProto
    floating = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE}
    quantized = {kinds.INT8, kinds.FLOAT8E4M3FN}
    return OnnxInspection(
        kind="onnx",
        path=str(path),
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        producer=f"{graph.producer_name} {graph.producer_version}".strip(),
        opset=opset_of(graph),
        inputs=tuple(map(spec_of, graph.graph.input)),
        outputs=tuple(map(spec_of, graph.graph.output)),
        parameters=sum(
            prod(tensor.dims)
            for tensor in graph.graph.initializer
            if tensor.data_type in floating or (tensor.data_type in quantized and len(tensor.dims) > 1)
        ),
        flops=graph_flops(graph),
        nodes=node_counts(graph),
        provenance={item.key: item.value for item in graph.metadata_props},
    )
