"""Engines of real bundles, built by TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest

from riformer_deploy.api import build
from riformer_deploy.api.build import BuildReport, build_engines
from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle, engine_of
from riformer_deploy.bundle.writing import staging, update
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import BundleChangedError, BundleError, OptionError
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.results import LatencyResult, ParityResult, Status
from riformer_deploy.quantization.search import search
from riformer_deploy.system.cuda_driver import Driver
from riformer_deploy.trt import build_options
from riformer_deploy.trt.build_options import BuildOptions, profiles_of
from riformer_deploy.trt.builder import BuiltPlan, build_plan
from tests.judges import Figures, task, tuned
from tests.manifests import file_record, graph_of
from tests.sessions import series, session

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")

NO_GPU = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
ENGINE, LOG = "model.fp32.tensorrt-rtx.engine", "model.fp32.tensorrt-rtx.log"
pytestmark = pytest.mark.usefixtures("no_gpu")


def _profile(low: int, middle: int, high: int) -> BatchProfile:
    return BatchProfile(minimum=low, optimum=middle, maximum=high)


def _files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(bundle.iterdir())}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> tuple[Path, BuildReport]:
    """The tiny bundle with an engine, and what building it reported; read only."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("built") / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "query_driver", lambda: NO_GPU)
        return bundle, build_engines(bundle, BuildOptions())


@pytest.fixture
def built_copy(tmp_path: Path, built: tuple[Path, BuildReport]) -> Path:
    """A copy of the built bundle that the test may change."""
    return Path(shutil.copytree(built[0], tmp_path / "built"))


def test_the_engine_metadata_says_what_an_engine_is_made_of_and_for(built: tuple[Path, BuildReport]) -> None:
    directory, report = built
    manifest = Bundle.open(directory).manifest
    assert report.bundle == str(directory)
    assert report.engines == manifest.engines
    assert report.warnings == ()
    (artifact,) = manifest.engines
    (graph,) = manifest.onnx
    metadata = artifact.metadata
    assert (artifact.precision, artifact.inputs, artifact.outputs) == (
        Precision.FP32,
        graph.inputs,
        graph.outputs,
    )
    assert (metadata.backend, metadata.backend_version) == (
        TensorRTFlavor.TENSORRT_RTX,
        importlib.metadata.version("tensorrt-rtx"),
    )
    assert metadata.onnx_sha256 == graph.file.sha256 == artifact.file.parent_sha256
    assert metadata.weights_sha256 == manifest.source.weights_sha256
    assert (metadata.driver_cuda, metadata.gpu, metadata.gpu_compute_capability) == (None, None, None)
    assert metadata.backend_cuda in (12, 13)
    assert metadata.profiles == (_profile(1, 8, 32),)
    assert metadata.settings == BuildSettings()
    assert metadata.build_ms > 0
    assert metadata.network_layers["FLOAT"] > 30
    assert (metadata.engine_layers, artifact.layers) == (None, None)


def test_every_file_of_an_engine_is_listed_with_its_hash(built: tuple[Path, BuildReport]) -> None:
    directory, _ = built
    bundle = Bundle.open(directory)
    (artifact,) = bundle.manifest.engines
    assert [record.path for record in artifact.files] == [ENGINE, LOG]
    assert artifact.log.parent_sha256 == artifact.file.sha256
    for record in artifact.files:
        assert bundle.path_of(record).stat().st_size == record.size_bytes
        assert sha256_of(directory / record.path) == record.sha256
    assert {path.name for path in directory.iterdir()} == {
        "bundle.json",
        *(record.path for record in bundle.manifest.files),
    }


def test_the_log_holds_what_the_builder_said_and_no_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, built: tuple[Path, BuildReport]
) -> None:
    text = (built[0] / LOG).read_text()
    assert "[INFO] ONNX IR version: " in text
    assert "Engine generation completed" in text
    assert str(built[0].parent) not in text
    shutil.copytree(tiny_bundle, tmp_path / "e")  # a name that is in every word
    monkeypatch.chdir(tmp_path)
    build_engines("e", BuildOptions())
    assert "[INFO] ONNX IR version: " in (tmp_path / "e" / LOG).read_text()
    assert "Engine generation completed" in (tmp_path / "e" / LOG).read_text()


def test_the_file_is_the_plan_and_building_again_replaces_it(
    built_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[BuiltPlan] = []

    def spied(*arguments: object) -> BuiltPlan:
        plans.append(build_plan(*arguments))  # type: ignore[arg-type]
        return plans[-1]

    monkeypatch.setattr(build, "build_plan", spied)
    before = Bundle.open(built_copy).manifest
    settings = BuildSettings(
        workspace_bytes=1 << 30, optimization_level=2, tf32=True, compute_capabilities=("8.6", "8.9", "12.0")
    )
    profiles = (_profile(1, 1, 1), _profile(2, 4, 8))
    build_engines(built_copy, BuildOptions(settings=settings, profiles=profiles))
    (artifact,) = Bundle.open(built_copy).manifest.engines
    assert (built_copy / ENGINE).read_bytes() == plans[0].plan  # nothing before it, nothing after it
    assert artifact.file.sha256 != before.engines[0].file.sha256
    assert (artifact.metadata.settings, artifact.metadata.profiles) == (settings, profiles)
    after = Bundle.open(built_copy).manifest
    assert dataclasses.replace(after, engines=before.engines) == before


@pytest.mark.slow
def test_engines_of_other_precisions_stay(tmp_path: Path, precise_bundle: Path) -> None:
    bundle = Path(shutil.copytree(precise_bundle, tmp_path / "bundle"))
    steps: list[str] = []
    build_engines(bundle, BuildOptions(precisions=(Precision.INT8, Precision.FP16)), steps.append)
    built = [step.partition(",")[0] for step in steps]
    assert list(dict.fromkeys(built)) == ["building model.int8.onnx", "building model.fp16.onnx"]
    first = Bundle.open(bundle).manifest.engines
    assert [engine.precision for engine in first] == [Precision.FP16, Precision.INT8]
    assert "HALF" in first[0].metadata.network_layers
    assert first[1].metadata.network_layers["INT8"] == 58  # a weight and an input of each of 29 layers
    build_engines(bundle, BuildOptions(precisions=(Precision.FP32,)))
    manifest = Bundle.open(bundle).manifest
    assert [engine.precision for engine in manifest.engines] == [
        Precision.FP32,
        Precision.FP16,
        Precision.INT8,
    ]
    assert manifest.engines[1:] == first
    for record in manifest.files:
        Bundle.open(bundle).path_of(record)


def test_what_the_builder_warns_of_reaches_the_report_and_the_log(
    tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_options, "_MOST_VALUES", 2**62)  # to see what it warns of
    options = BuildOptions(profiles=(_profile(1, 2, 2_000_000_000),))
    report = build_engines(tiny_bundle_copy, options)
    assert any("Profile kMAX values are not self-consistent" in text for text in report.warnings)
    assert all(text.startswith("model.fp32.tensorrt-rtx: [WARNING] ") for text in report.warnings)
    log = (tiny_bundle_copy / LOG).read_text()
    for text in report.warnings:
        assert text.partition(": ")[2] in log


def _graph(batch: int | str) -> OnnxArtifact:
    return graph_of(file_record("model.fp32.onnx"), batch)


@pytest.mark.parametrize(
    ("batch", "wanted", "expected"),
    [
        ("batch", (), (_profile(1, 8, 32),)),
        ("batch", (_profile(1, 1, 1), _profile(2, 3, 4)), (_profile(1, 1, 1), _profile(2, 3, 4))),
        (4, (), (_profile(4, 4, 4),)),
        (4, (_profile(4, 4, 4),), (_profile(4, 4, 4),)),
    ],
)
def test_profiles_are_those_asked_for_or_what_the_graph_has(
    batch: int | str, wanted: tuple[BatchProfile, ...], expected: tuple[BatchProfile, ...]
) -> None:
    assert profiles_of(_graph(batch), wanted) == expected


@pytest.mark.parametrize("wanted", [(_profile(1, 8, 32),), (_profile(4, 4, 4), _profile(8, 8, 8))])
def test_another_profile_than_a_fixed_batch_is_refused(wanted: tuple[BatchProfile, ...]) -> None:
    with pytest.raises(OptionError, match=r"model\.fp32\.onnx has a fixed batch of 4") as caught:
        profiles_of(_graph(4), wanted)
    assert str(wanted[0]) in caught.value.message
    assert "--profile" in caught.value.remedy


@pytest.mark.untraced
def test_a_graph_of_fixed_batch_becomes_an_engine_of_that_batch(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    bundle = tmp_path / "fixed"
    options = ExportOptions(checkpoint=tiny_checkpoint, output=bundle, image_size_px=(64, 48), batch=3)
    assert export_checkpoint(options).status is Status.PASSED
    before = _files(bundle)
    with pytest.raises(OptionError, match="fixed batch of 3"):
        build_engines(bundle, BuildOptions(profiles=(_profile(1, 8, 32),)))
    assert _files(bundle) == before
    (artifact,) = build_engines(bundle, BuildOptions()).engines
    assert artifact.metadata.profiles == (_profile(3, 3, 3),)
    assert artifact.inputs[0].shape == (3, 3, 64, 48)


def test_a_bundle_that_was_exported_anew_meanwhile_is_not_given_engines_of_old_graphs(
    tiny_bundle_copy: Path,
) -> None:
    changed = False

    def export(_step: str) -> None:
        nonlocal changed
        if not changed:
            changed = True
            with staging(tiny_bundle_copy) as staged:
                update(
                    tiny_bundle_copy,
                    staged,
                    lambda now: dataclasses.replace(now, onnx=(dataclasses.replace(now.onnx[0], opset=21),)),
                )

    with pytest.raises(BundleChangedError, match="exported anew while its engines were built") as caught:
        build_engines(tiny_bundle_copy, BuildOptions(), export)
    assert str(tiny_bundle_copy) in caught.value.message
    manifest = Bundle.open(tiny_bundle_copy).manifest
    assert (manifest.engines, manifest.onnx[0].opset) == ((), 21)
    assert not list(tiny_bundle_copy.glob("*.engine"))


@pytest.mark.slow
def test_exporting_again_keeps_engines_of_graphs_that_stay_and_drops_the_others_with_a_note(
    built_copy: Path, tiny_checkpoint: Path
) -> None:
    def export(precision: Precision, opset: int) -> tuple[str, ...]:
        report = export_checkpoint(
            ExportOptions(
                checkpoint=tiny_checkpoint,
                output=built_copy,
                image_size_px=(64, 48),
                lowerings=(LoweringConfig(precision=precision),),
                opset=opset,
            )
        )
        assert report.status is Status.PASSED
        assert not [item.reason for item in report.parity.skipped if "cannot be read" in item.reason]
        return report.notes

    before = Bundle.open(built_copy).manifest.engines
    assert not [note for note in export(Precision.FP16, 20) if "dropped" in note]
    kept = Bundle.open(built_copy)
    assert kept.manifest.engines == before
    for record in before[0].files:
        kept.path_of(record)
    notes = export(Precision.FP32, 21)
    assert [note for note in notes if "dropped" in note] == [
        f"dropped from the bundle: {ENGINE}: it was built from a model that is replaced"
    ]
    assert Bundle.open(built_copy).manifest.engines == ()
    assert not (built_copy / ENGINE).exists()
    assert not (built_copy / LOG).exists()


def test_an_engine_is_found_by_its_file_and_another_is_refused(built: tuple[Path, BuildReport]) -> None:
    bundle = Bundle.open(built[0])
    assert engine_of(bundle, built[0] / ENGINE) == bundle.manifest.engines[0]
    with pytest.raises(BundleError, match=r"other\.engine is not an engine that the bundle") as caught:
        engine_of(bundle, built[0] / "other.engine")
    assert "riformer-deploy build" in caught.value.remedy


def test_a_manifest_with_engines_is_read_by_whoever_knows_json(built: tuple[Path, BuildReport]) -> None:
    stored = json.loads((built[0] / "bundle.json").read_text())
    metadata = stored["engines"][0]["metadata"]
    assert metadata["backend"] == "tensorrt-rtx"
    assert metadata["profiles"] == [{"minimum": 1, "optimum": 8, "maximum": 32}]


def test_a_first_engine_drops_nothing(tiny_bundle_copy: Path) -> None:
    bundle = Bundle.open(tiny_bundle_copy)
    store_result(
        bundle, "latency", session(series("a graph", 1, "0" * 64)), {"report.html": "what was measured"}
    )
    before = Bundle.open(tiny_bundle_copy).manifest.results
    report = build_engines(tiny_bundle_copy, BuildOptions())
    assert report.dropped == ()
    assert Bundle.open(tiny_bundle_copy).manifest.results == before


def test_results_of_a_replaced_engine_go_and_are_named_and_others_stay(built_copy: Path) -> None:
    bundle = Bundle.open(built_copy)
    (engine,), (graph,) = bundle.manifest.engines, bundle.manifest.onnx
    answer = tuned(
        search(task(max_seconds=1.0), Figures(0)),
        artifact_sha256=graph.file.sha256,
        engine_file=ENGINE,
        engine_sha256=engine.file.sha256,
    )
    store_result(bundle, "tune-engine", answer)
    parity = load_json(ParityResult, bundle.text(bundle.manifest.results["parity"]))
    store_result(Bundle.open(built_copy), engine.parity_kind, parity)
    latency = session(series("an engine", 1, engine.file.sha256), series("a graph", 1, graph.file.sha256))
    store_result(Bundle.open(built_copy), "latency", latency)
    report = build_engines(built_copy, BuildOptions(settings=BuildSettings(optimization_level=2)))
    after = Bundle.open(built_copy)
    assert set(after.manifest.results) == {"parity", "latency"}
    left = load_json(LatencyResult, after.text(after.manifest.results["latency"]))
    assert [item.name for item in left.samples] == ["a graph"]
    for name in ("tune-engine.json", f"{engine.parity_kind}.json", "latency.json: an engine"):
        assert any(name in text for text in report.dropped), name
