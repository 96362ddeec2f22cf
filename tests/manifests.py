"""Manifests and bundles whose files hold a word each, for tests of records and of writing."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.architecture import Architecture, Form
from riformer_deploy.artifacts import (
    FileRecord,
    LoweringRecord,
    OnnxArtifact,
    Precision,
    TensorSpec,
    WeightsArtifact,
)
from riformer_deploy.bundles import Bundle, commit, record_file, staging
from riformer_deploy.manifests import SCHEMA_VERSION, Manifest, ModelRecord, Source, WeightSet
from riformer_deploy.variants import Preprocessing

PLAIN = LoweringRecord(
    norm="instance",
    base=Precision.FP32,
    io=Precision.FP32,
    input_form="normalised",
    output_form="logits",
    topk=None,
    float32_blocks=(),
    unquantized=(),
    equalized=(),
    quantized_residual=False,
    calibration=None,
)
"""How an FP32 model is lowered."""


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
        precision=Precision.FP32,
        opset=20,
        inputs=(TensorSpec(name="images", dtype="float32", shape=(batch, 3, 64, 96)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(batch, 2)),),
        lowering=PLAIN,
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
