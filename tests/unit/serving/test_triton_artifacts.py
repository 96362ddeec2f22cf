from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.artifacts import MANIFEST, OnnxArtifact
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, EngineArtifact, TensorRTFlavor
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision, RuntimeKind
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import InputImages, LatencyResult, LatencySamples
from riformer_deploy.serving.triton_artifacts import CONTAINERS, batching_of, container_of, served_artifact
from riformer_deploy.system.machine import describe_machine
from tests.manifests import engine_of, file_record, graph_of, write_bundle


def bundle_with(
    tmp_path: Path, *, graphs: tuple[OnnxArtifact, ...] = (), engines: tuple[EngineArtifact, ...] = ()
) -> Bundle:
    """A bundle whose manifest names these, whether or not there are files."""
    bundle = write_bundle(tmp_path / "bundle", {"w.pth": "weights", "model.fp32.onnx": "graph"})
    manifest = dataclasses.replace(
        bundle.manifest, onnx=graphs or (graph_of(file_record("model.fp32.onnx")),)
    )
    return Bundle(bundle.directory, dataclasses.replace(manifest, engines=engines))


def test_what_triton_cannot_run_is_refused_with_the_reason(tmp_path: Path) -> None:
    graph = graph_of(file_record("g.onnx"), batch=4)
    lowering = dataclasses.replace(graph.lowering, precision=Precision.BF16)
    other = dataclasses.replace(
        graph_of(dataclasses.replace(file_record("b.onnx"), sha256="f" * 64)), lowering=lowering
    )
    bundle = bundle_with(tmp_path, graphs=(graph, other))
    with pytest.raises(BundleError) as caught:
        served_artifact(bundle, Group.ONNX, None)
    assert caught.value.details == (
        "g.onnx: takes batches of 4 only, and Triton puts requests together",
        "b.onnx: ONNX Runtime has no CPU kernels for bfloat16",
    )
    with pytest.raises(BundleError, match="in fp16") as caught:
        served_artifact(bundle, Group.ONNX, Precision.FP16)
    assert caught.value.details[0] == "g.onnx: computes in fp32"


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (
            engine_of(backend=TensorRTFlavor.TENSORRT_RTX, backend_version="1.7.1"),
            "no backend for engines of",
        ),
        (engine_of(profiles=(BatchProfile(minimum=2, optimum=2, maximum=2),)), "Triton runs single requests"),
        (engine_of(backend_version="9.3.0"), "no container with TensorRT 9.3.0"),
    ],
)
def test_engines_that_triton_cannot_run_are_refused_with_the_reason(
    engine: EngineArtifact, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=reason):
        served_artifact(bundle_with(tmp_path, engines=(engine,)), Group.ENGINE, None)


def test_the_container_is_that_of_the_engine_s_tensorrt(tmp_path: Path) -> None:
    assert CONTAINERS == {  # 26.05 is the last with TensorRT 10, 26.06 the first with 11
        10: "nvcr.io/nvidia/tritonserver:26.05-py3",
        11: "nvcr.io/nvidia/tritonserver:26.06-py3",
    }
    for version, container in (
        ("10.0.1", "26.05-py3"), ("10.16.0.1", "26.05-py3"), ("11.0.0", "26.06-py3"), ("11.5.0", "26.06-py3")
    ):  # fmt: skip
        engine = engine_of(backend_version=version)
        served = served_artifact(bundle_with(tmp_path / version, engines=(engine,)), Group.ENGINE, None)
        assert served == engine
        image, (note,) = container_of(served)
        assert image == f"nvcr.io/nvidia/tritonserver:{container}"
        assert version in note
        assert "--version-compatible" in note
    compatible = engine_of(settings=BuildSettings(version_compatible=True))
    assert "--version-compatible" not in container_of(compatible)[1][0]


def test_an_artifact_that_failed_parity_is_not_served(precise_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(precise_bundle, tmp_path / "bundle"))
    bundle = Bundle.open(folder)
    stored = json.loads((folder / "parity.json").read_text())
    for candidate in stored["candidates"]:
        if candidate["config"]["runtime"] == "onnxruntime" and candidate["config"]["precision"] == "fp32":
            candidate["status"] = "failed"
            candidate["outputs"][0]["status"] = "failed"
            choice = candidate["outputs"][0]["decisions"]
            choice |= {"flips": 1, "decided_flips": 1, "top1_agreement": 1 - 1 / choice["images"]}
    stored["status"] = "failed"
    (folder / "parity.json").write_text(json.dumps(stored))
    record = dataclasses.replace(bundle.manifest.results["parity"], sha256=sha256_of(folder / "parity.json"))
    manifest = dataclasses.replace(bundle.manifest, results={**bundle.manifest.results, "parity": record})
    record = dataclasses.replace(record, size_bytes=(folder / "parity.json").stat().st_size)
    manifest = dataclasses.replace(manifest, results={**manifest.results, "parity": record})
    (folder / MANIFEST).write_text(dump_json(manifest))
    changed = Bundle.open(folder)
    assert served_artifact(changed, Group.ONNX, None).precision is Precision.FP16
    with pytest.raises(BundleError, match="failed parity"):
        served_artifact(changed, Group.ONNX, Precision.FP32)


def test_batching_follows_the_latencies_that_the_bundle_holds(digits_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    bundle = Bundle.open(folder)
    (artifact,) = bundle.manifest.onnx
    assert batching_of(bundle, artifact).preferred == ()
    config = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=Precision.FP32)
    samples = tuple(
        LatencySamples(
            config=config,
            batch=batch,
            samples_ms=(median_ms,) * 6,
            preparation_ms=1.0,
            artifact_sha256=artifact.file.sha256,
            warning=None,
            summary=summarize(np.array((median_ms,) * 6), batch),
        )
        for batch, median_ms in ((1, 2.0), (4, 4.0), (8, 7.9), (32, 40.0))
    )
    result = LatencyResult(
        schema=2,
        kind="latency",
        created_utc="2026-01-01T00:00:00+00:00",
        machine=describe_machine(),
        inputs=InputImages(description="x", image_size_px=(64, 64), batches=(1, 4, 8, 32), seed=0),
        threads=1,
        rounds=2,
        repeats=3,
        samples=samples,
        skipped=(),
        process_peak_rss_bytes=1,
    )
    store_result(bundle, "latency", result)
    batching = batching_of(Bundle.open(folder), artifact)
    # 500, 1000, 1012 and 800 images a second: 4 is as good as 8; half of 2 ms is waited for it.
    assert (batching.largest, batching.preferred, batching.longest_delay_us) == (32, (4,), 1000)
    assert "1, 4, 8, 32 were measured" in batching.source
    alone = dataclasses.replace(result, samples=samples[:1])
    store_result(Bundle.open(folder), "latency", alone)  # as `bench --batch 1` does
    batching = batching_of(Bundle.open(folder), artifact)
    assert (batching.largest, batching.preferred) == (8, ())
    assert "one batch size alone was measured" in batching.source
