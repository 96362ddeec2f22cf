"""Manifests and bundles whose files hold a word each, for tests of records and of writing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from riformer_deploy.bundle.artifacts import (
    FileRecord,
    GraphContents,
    OnnxArtifact,
    TensorSpec,
    WeightsArtifact,
)
from riformer_deploy.bundle.engine_metadata import (
    BatchProfile,
    BuildSettings,
    EngineArtifact,
    EngineMetadata,
    TensorRTFlavor,
)
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import SCHEMA_VERSION, Manifest, ModelRecord, Source
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import commit, record_file, staging
from riformer_deploy.common.enums import Precision, WeightSet
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture, Form


def file_record(path: str) -> FileRecord:
    """A file of three bytes that is nowhere."""
    return FileRecord(path=path, sha256="a" * 64, size_bytes=3, parent_sha256="b" * 64)


def source_of(sha256: str = "c" * 64, weights: WeightSet = WeightSet.ONLY) -> Source:
    """A checkpoint ``a.pth`` in training form."""
    return Source(
        file_name="a.pth", sha256=sha256, form=Form.TRAINING, weights=weights, weights_sha256="d" * 64
    )


def graph_of(file: FileRecord, batch: int | str = "batch") -> OnnxArtifact:
    """An FP32 graph of two classes."""
    return OnnxArtifact(
        file=file,
        opset=20,
        inputs=(TensorSpec(name="images", dtype="float32", shape=(batch, 3, 64, 96)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(batch, 2)),),
        contents=GraphContents(producer="pytorch", parameters=9, flops=18, nodes=(), provenance={}),
        lowering=LoweringConfig(),
    )


def manifest_of(*files: FileRecord, source: Source | None = None) -> Manifest:
    """The first file as weights, the second as the graph, the others as results."""
    absent = (file_record("w.pth"), file_record("g.onnx"))
    weights, graph, *results = files if len(files) >= 2 else (*files, *absent)[:2]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        tool_version="0.1.0",
        created_utc="2025-01-02T03:04:05+00:00",
        model=ModelRecord(
            variant=None,
            architecture=Architecture.from_arch((1, 1, 1, 1), (4, 8, 12, 16), num_classes=2),
            preprocessing=Preprocessing(resize_short_edge_px=None, crop_px=(64, 96)),
            class_names=None,
        ),
        source=source or source_of(),
        weights=(WeightsArtifact(file=weights, form=Form.TRAINING),),
        onnx=(graph_of(graph),),
        results={record.path: record for record in results},
    )


def write_bundle(
    directory: Path,
    contents: dict[str, str],
    *kept: FileRecord,
    source: Source | None = None,
    force: bool = False,
) -> Bundle:
    """Commit a bundle of text files, after ``kept`` ones that it holds already."""
    with staging(directory) as staged:
        for name, text in contents.items():
            (staged / name).write_text(text)
        records = [record_file(staged / name, "") for name in contents]
        return commit(directory, staged, manifest_of(*kept, *records, source=source), force=force)


def restate(directory: Path, name: str, content: bytes) -> None:
    """Change a file of a bundle, and the manifest with it: every hash and size is right."""
    (directory / name).write_bytes(content)
    path = directory / "bundle.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_restated(manifest, name, content)), encoding="utf-8")


def _restated(data: Any, name: str, content: bytes) -> Any:
    if isinstance(data, list):
        return [_restated(item, name, content) for item in data]
    if not isinstance(data, dict):
        return data
    if data.get("path") == name and "sha256" in data:
        return data | {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return {key: _restated(value, name, content) for key, value in data.items()}


def engine_of(plan: bytes = b"plan", **metadata: Any) -> EngineArtifact:
    """An FP32 engine of TensorRT 10 that holds ``plan``, built from :func:`file_record`'s graph."""
    plain = EngineMetadata(
        backend=TensorRTFlavor.TENSORRT,
        backend_version="10.16.0.1",
        backend_cuda=13,
        onnx_sha256="a" * 64,
        weights_sha256="d" * 64,
        driver_cuda="13.0",
        gpu="GPU",
        gpu_compute_capability="8.9",
        profiles=(BatchProfile(minimum=1, optimum=8, maximum=32),),
        settings=BuildSettings(),
        build_ms=1.0,
        network_layers={"FLOAT": 3},
        engine_layers=2,
    )
    changed = dataclasses.replace(plain, **metadata)
    stem = f"model.fp32.{changed.backend}"
    digest = hashlib.sha256(plan).hexdigest()
    graph = graph_of(file_record("model.fp32.onnx"))
    return EngineArtifact(
        file=FileRecord(
            path=f"{stem}.engine", sha256=digest, size_bytes=len(plan), parent_sha256=changed.onnx_sha256
        ),
        precision=Precision.FP32,
        inputs=graph.inputs,
        outputs=graph.outputs,
        metadata=changed,
        log=FileRecord(path=f"{stem}.log", sha256="e" * 64, size_bytes=3, parent_sha256=digest),
    )
