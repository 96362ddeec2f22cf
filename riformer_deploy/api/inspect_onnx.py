"""What an ONNX file is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from riformer_deploy.api.inspections import OnnxInspection
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.foreign_data import foreign_data
from riformer_deploy.common.snapshots import read_unchanged
from riformer_deploy.export.onnx_bounds import check_bounds
from riformer_deploy.export.onnx_graph import entries_of, graph_contents, opset_of, spec_of
from riformer_deploy.export.onnx_metadata import read_model_metadata

_MOST_BYTES = 2 << 30  # protobuf's own limit


def inspect_onnx(path: Path) -> OnnxInspection:
    """Say what an ONNX file holds.

    Args:
        path: The file, of at most 2 GiB and 50,000 nodes, with all its weights in it.

    Raises:
        RuntimeFailureError: It is not valid, or beyond these limits.
    """
    with foreign_data(path, RuntimeFailureError, kind="a valid ONNX file"):
        content = bytes(read_unchanged(path, _MOST_BYTES))
        graph = onnx.load_model_from_string(content)
        check_bounds(graph)
        onnx.checker.check_model(content)
        contents = graph_contents(graph)
        metadata = read_model_metadata(entries_of(graph))
        return OnnxInspection(
            kind="onnx",
            path=str(path),
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            producer=contents.producer,
            opset=opset_of(graph),
            inputs=tuple(map(spec_of, graph.graph.input)),
            outputs=tuple(map(spec_of, graph.graph.output)),
            parameters=contents.parameters,
            flops=contents.flops,
            nodes=contents.nodes,
            provenance=metadata.other,
            preprocessing=metadata.preprocessing,
            class_names=metadata.class_names,
        )
