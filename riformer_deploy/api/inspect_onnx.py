"""What an ONNX file is."""

from __future__ import annotations

from pathlib import Path

import onnx

from riformer_deploy.api.inspections import OnnxInspection
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.files import sha256_of
from riformer_deploy.export.onnx_graph import graph_contents, opset_of, spec_of


def inspect_onnx(path: Path) -> OnnxInspection:
    """Say what an ONNX file holds.

    Args:
        path: The file.

    Raises:
        RuntimeFailureError: It is not valid.
    """
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(str(path))
    except Exception as err:  # protobuf's, onnx's and the system's own errors
        raise RuntimeFailureError(f"{path} is not a valid ONNX file: {err}") from err
    contents = graph_contents(graph)
    return OnnxInspection(
        kind="onnx",
        path=str(path),
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        producer=contents.producer,
        opset=opset_of(graph),
        inputs=tuple(map(spec_of, graph.graph.input)),
        outputs=tuple(map(spec_of, graph.graph.output)),
        parameters=contents.parameters,
        flops=contents.flops,
        nodes=contents.nodes,
        provenance=contents.provenance,
    )
