from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import onnx
import pytest
import torch
from onnx import helper

from riformer_deploy.api.inspect import (
    BundleInspection,
    CheckpointInspection,
    EngineInspection,
    OnnxInspection,
    inspect_file,
)
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import Precision, RuntimeKind, WeightSet
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.latency_sessions import store_session
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.model.variants import Variant
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.trt import preflight
from tests.sessions import series, session

Run = Callable[..., CompletedProcess[str]]


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_a_real_training_checkpoint_as_json_is_the_record_and_nothing_else(
    cli: Run, digits_checkpoint: Path
) -> None:
    ran = cli("inspect", digits_checkpoint, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert set(json.loads(ran.stdout)) == _fields(CheckpointInspection)
    found = load_json(CheckpointInspection, ran.stdout)
    assert (found.kind, found.sha256) == ("checkpoint", sha256_of(digits_checkpoint))
    assert (found.form, found.weights, found.stored_dtypes) == (Form.TRAINING, WeightSet.ONLY, ("float32",))
    assert found.architecture.layers == (2, 2, 6, 2)
    assert (found.variants, found.class_names) == ((), tuple("0123456789"))
    # per block, a deploy form has one norm where training has a norm and an affine branch
    dims = zip(found.architecture.layers, found.architecture.embed_dims, strict=True)
    assert found.parameters - found.deploy_parameters == sum(2 * depth * dim for depth, dim in dims)
    assert found.training["epoch"] == "15"
    assert (found.preprocessing, found.flops) == (None, None)
    assert "image size" in found.notes[0]


def test_a_checkpoint_as_text_tells_what_is_not_known(cli: Run, digits_checkpoint: Path) -> None:
    ran = cli("inspect", digits_checkpoint)
    assert (ran.returncode, ran.stderr) == (
        0,
        f"Next: riformer-deploy export {digits_checkpoint} --image-size PX\n",
    )
    assert "none: a custom architecture" in ran.stdout
    assert "training (only weights, stored as float32)" in ran.stdout
    assert "10: 0, 1, 2, 3, 4…" in ran.stdout
    assert "724,602 (722,938 once fused)" in ran.stdout
    assert "size unknown" in ran.stdout
    assert sha256_of(digits_checkpoint) in ran.stdout


def test_an_assumed_size_is_told_and_the_cost_is_that_of_the_deploy_form(
    cli: Run,
    tiny_checkpoint: Path,
    tiny_architecture: Architecture,
    tiny_variants: tuple[Variant, ...],
) -> None:
    found = load_json(CheckpointInspection, cli("inspect", tiny_checkpoint, "--json").stdout)
    assert found.variants == tuple(variant.name for variant in tiny_variants)
    assert found.preprocessing is not None
    assert (found.preprocessing.source, found.preprocessing.crop_px) == ("assumed", (64, 64))
    assert found.flops == complexity(tiny_architecture, Form.DEPLOY, (64, 64)).flops
    assert "is assumed" in found.notes[0]
    text = cli("inspect", tiny_checkpoint).stdout
    assert "riformer-tiny-64 or riformer-tiny-96" in text
    assert "64x64 px, from: assumed" in text


def test_an_ema_checkpoint_says_that_the_average_was_looked_at(cli: Run, ema_checkpoint: Path) -> None:
    ran = cli("inspect", ema_checkpoint, "--json")
    assert load_json(CheckpointInspection, ran.stdout).weights is WeightSet.AVERAGED


def test_an_onnx_file_as_json_is_the_record_with_the_cost_of_the_model_in_it(
    cli: Run, tiny_bundle: Path, onnx_of: Callable[[Path], Path], tiny_architecture: Architecture
) -> None:
    path = onnx_of(tiny_bundle)
    ran = cli("inspect", path, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert set(json.loads(ran.stdout)) == _fields(OnnxInspection)
    found = load_json(OnnxInspection, ran.stdout)
    assert found.flops == complexity(tiny_architecture, Form.FOLDED, (64, 48)).flops
    assert (found.sha256, found.size_bytes) == (sha256_of(path), path.stat().st_size)
    assert (found.inputs[0].shape, found.outputs[0].shape) == (("batch", 3, 64, 48), ("batch", 7))
    assert found.provenance["source_sha256"] == Bundle.open(tiny_bundle).manifest.source.sha256


def test_an_onnx_file_as_text_tells_cost_nodes_and_provenance(
    cli: Run, tiny_bundle: Path, onnx_of: Callable[[Path], Path]
) -> None:
    ran = cli("inspect", onnx_of(tiny_bundle))
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy verify parity {tiny_bundle}\n")
    for said in (
        "float32 ['batch', 3, 64, 48]",
        "multiply-adds per image",
        "source_sha256",
        "│ Conv ",
        "│ 20",
    ):
        assert said in ran.stdout


def test_what_an_onnx_file_of_others_says_of_itself_is_bounded_and_cleaned(cli: Run, tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    names = ["\x1b[31mred\n", "green", *("z" * 9 for _ in range(99_999))]
    helper.set_model_props(
        model, {"preprocessing": "resize\x1b[2J " + "x" * 99_999, "class_names": json.dumps(names)}
    )
    onnx.save(model, tmp_path / "foreign.onnx")
    ran = cli("inspect", tmp_path / "foreign.onnx")
    assert ran.returncode == 0
    assert "100001: \\x1b[31mred\\n, green, zzz" in ran.stdout
    assert "preprocessing: resize\\x1b[2J xxx" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert len(ran.stdout) < 20_000


@pytest.mark.parametrize("name", ["", "bundle.json"], ids=["folder", "manifest"])
def test_a_bundle_is_told_by_its_folder_or_its_manifest(cli: Run, tiny_bundle: Path, name: str) -> None:
    ran = cli("inspect", tiny_bundle / name, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert set(json.loads(ran.stdout)) == _fields(BundleInspection)
    found = load_json(BundleInspection, ran.stdout)
    assert (found.kind, found.intact, found.problems) == ("bundle", True, ())
    assert found.manifest == Bundle.open(tiny_bundle).manifest


def test_a_bundle_as_text_tells_every_file_and_that_all_are_intact(cli: Run, tiny_bundle: Path) -> None:
    ran = cli("inspect", tiny_bundle, "-v")
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy verify parity {tiny_bundle}\n")
    assert "every file is as recorded" in ran.stdout
    assert "tiny.pth (training form, only weights)" in ran.stdout
    found = inspect_file(tiny_bundle)
    assert isinstance(found, BundleInspection)
    assert f"{found.deploy_parameters:,} once fused" in ran.stdout
    assert f"{found.flops / 1e9:.3f} G multiply-adds, fused" in ran.stdout
    assert f"passed, {found.parity_utc}" in ran.stdout
    assert "model.fp32.onnx" in ran.stdout
    assert "│ Conv " in ran.stdout  # the graph's own operators
    for record in Bundle.open(tiny_bundle).manifest.files:
        assert record.path in ran.stdout
        assert record.sha256 in ran.stdout


def test_a_bundle_first_tells_what_its_user_needs_and_hashes_only_when_asked(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    bundle = Bundle.open(tiny_bundle_copy)
    (graph,) = bundle.manifest.onnx
    config = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=Precision.FP32)
    measured = dataclasses.replace(series("onnx", 1, graph.file.sha256), config=config)
    store_session(bundle, session(measured))
    text = " ".join(cli("inspect", tiny_bundle_copy).stdout.replace("│", " ").split())
    places = [
        text.index(said)
        for said in (
            "preprocessing centre crop 64x48 px; RGB; mean 123.675, 116.28, 103.53; std 58.395, 57.12, ",
            "input images float32 ['batch', 3, 64, 48]",
            "output logits float32 ['batch', 7]",
            "classes 7: class 0, class 1, class 2, class 3, class 4…",
            "ship, batch 1 model.fp32.onnx in ONNX Runtime fp32, 1.20 ms; parity passed; accuracy not ",
            "parity passed, ",
            "not verified Accuracy was not measured: how often the model is right is not known.",
            "every file is as recorded",
        )
    ]
    assert places == sorted(places)
    assert graph.file.sha256 not in text
    assert "Conv" not in text
    found = load_json(BundleInspection, cli("inspect", tiny_bundle_copy, "--json").stdout)
    assert [(item.batch, item.file) for item in found.shipped] == [(1, "model.fp32.onnx")]


@pytest.mark.usefixtures("no_gpu")
def test_no_hash_or_name_is_broken_at_80_columns(
    cli: Run, engine_bundle: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    manifest = Bundle.open(engine_bundle).manifest
    (graph,), (engine,) = manifest.onnx, manifest.engines
    source, weights = manifest.source.sha256, manifest.source.weights_sha256
    for arguments, unbroken in (
        ((tiny_checkpoint,), (str(tiny_checkpoint), sha256_of(tiny_checkpoint))),
        ((engine_bundle / graph.file.path,), (graph.file.sha256, source, weights, "InstanceNormalization")),
        (
            (engine_bundle / ENGINE,),
            (engine.file.sha256, engine.log.path, engine.metadata.onnx_sha256, weights),
        ),
        ((engine_bundle,), (str(engine_bundle), ENGINE, "tiny.pth")),
        ((engine_bundle, "-v"), (source, *(name for f in manifest.files for name in (f.path, f.sha256)))),
    ):
        lines = cli("inspect", *arguments).stdout.splitlines()
        assert all(any(word in line for line in lines) for word in unbroken)
        assert max(len(line) for line in lines if line[:1] in "┏┃┡│└┌├") <= 80


@pytest.mark.parametrize("change", ["altered", "removed"])
def test_a_bundle_with_a_changed_file_is_not_intact_and_names_that_file_alone(
    cli: Run, tiny_bundle_copy: Path, change: str
) -> None:
    path = tiny_bundle_copy / "deploy.pth"
    if change == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        path.unlink()
    ran = cli("inspect", tiny_bundle_copy, "--json")
    assert ran.returncode == 31
    found = load_json(BundleInspection, ran.stdout)
    assert not found.intact
    assert len(found.problems) == 1
    assert str(path) in found.problems[0]
    ran = cli("inspect", tiny_bundle_copy)
    assert ran.returncode == 31
    text = ran.stdout
    assert "every file is as recorded" not in text
    assert "deploy.pth" in text.partition("integrity")[2]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("garbage.pth", b"hello world", 10),
        ("garbage", b"\x80\x02garbage", 10),
        ("garbage.onnx", b"hello world", 50),
        ("absent.onnx", None, 10),
        ("absent.pth", None, 10),
        ("absent", None, 10),
        ("bundle.json", b"{}", 30),
    ],
)
def test_garbage_is_refused_by_name(
    cli: Run, tmp_path: Path, name: str, content: bytes | None, code: int
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ran = cli("inspect", tmp_path / name)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert str(tmp_path / name) in ran.stderr
    assert "Traceback" not in ran.stderr


ENGINE = "model.fp32.tensorrt-rtx.engine"


@pytest.mark.usefixtures("no_gpu")
def test_an_engine_as_text_tells_its_engine_metadata_and_what_keeps_it_from_running_here(
    cli: Run, engine_bundle: Path
) -> None:
    ran = cli("inspect", engine_bundle / ENGINE)
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy verify parity {engine_bundle}\n")
    (engine,) = Bundle.open(engine_bundle).manifest.engines
    for said in (
        f"TensorRT-RTX {engine.metadata.backend_version}, CUDA {engine.metadata.backend_cuda} ",
        "float32 ['batch', 3, 64, 48]",
        "│ 1:8:32 ",
        "│ 8.0, 8.6, 8.9, 12.0 and later ",
        "no GPU, driver's CUDA -",
        f"{sum(engine.metadata.network_layers.values())}: ",
        engine.file.sha256,
        engine.log.sha256,
        engine.metadata.onnx_sha256,
        engine.metadata.weights_sha256,
        "│ NOT verified: run verify parity on its GPU ",
        "│ failed ",
    ):
        assert said in ran.stdout
    assert ran.stdout.splitlines()[-1] == (
        "does not fit: there is no NVIDIA GPU to run on: no NVIDIA driver (libcuda.so.1) is installed. "
        "Take the bundle to a machine with a GPU."
    )


def test_an_engine_as_json_is_the_record(cli: Run, engine_bundle: Path, no_gpu: Driver) -> None:
    ran = cli("inspect", engine_bundle / ENGINE, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert set(json.loads(ran.stdout)) == _fields(EngineInspection)
    found = load_json(EngineInspection, ran.stdout)
    assert (found.kind, found.intact, found.fits) == ("engine", True, False)
    assert found.artifact == Bundle.open(engine_bundle).manifest.engines[0]
    assert [str(no_gpu.problem) in finding.problem for finding in found.findings] == [True]
    assert found.parity is None


def test_an_engine_that_fits_this_machine_passes_preflight(
    cli: Run, engine_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(name="RTX", compute_capability="8.9", memory_bytes=1)
    driver = Driver(cuda_version="13.0", gpus=(gpu,), problem=None)
    monkeypatch.setattr(preflight, "query_driver", lambda: driver)
    monkeypatch.setattr(preflight, "validity", lambda _trt, _plan: ("VALID", ()))
    ran = cli("inspect", engine_bundle / ENGINE)
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy verify parity {engine_bundle}\n")
    assert "│ passed " in ran.stdout
    assert "does not fit" not in ran.stdout


@pytest.mark.usefixtures("no_gpu")
def test_an_altered_engine_is_told_and_exits_31(cli: Run, engine_bundle_copy: Path) -> None:
    path = engine_bundle_copy / ENGINE
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    ran = cli("inspect", path)
    assert ran.returncode == 31
    assert f"does not fit: {path} was altered: its sha256 is {sha256_of(path)}" in ran.stdout
    ran = cli("inspect", engine_bundle_copy)
    assert ran.returncode == 31
    assert ENGINE in ran.stdout


def test_a_bundle_as_text_tells_its_engines_and_that_they_are_not_verified(
    cli: Run, engine_bundle: Path
) -> None:
    ran = cli("inspect", engine_bundle)
    assert (ran.returncode, ran.stderr) == (0, f"Next: riformer-deploy verify parity {engine_bundle}\n")
    (row,) = [line for line in ran.stdout.splitlines() if line.startswith(f"│ {ENGINE} ") and "NOT" in line]
    assert "TensorRT-RTX" in row
    assert "NOT verified: run verify parity on its GPU" in row


@pytest.mark.parametrize("suffix", [".engine", ".plan", ".trt"])
def test_a_plan_that_lies_in_no_bundle_is_refused_by_name(
    cli: Run, tmp_path: Path, engine_bundle: Path, suffix: str
) -> None:
    path = tmp_path / f"alone{suffix}"
    path.write_bytes((engine_bundle / ENGINE).read_bytes())
    ran = cli("inspect", path)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert f"{path} lies in no bundle, and a plan says nothing of itself" in ran.stderr
    assert "riformer-deploy build" in ran.stderr


def test_a_foreign_plan_in_a_bundle_is_refused_by_name(cli: Run, engine_bundle_copy: Path) -> None:
    path = engine_bundle_copy / "foreign.engine"
    path.write_bytes((engine_bundle_copy / ENGINE).read_bytes())
    ran = cli("inspect", path)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert f"{path} is not an engine that the bundle {engine_bundle_copy} lists" in ran.stderr


def test_weights_and_key_choose_in_a_checkpoint_and_nowhere_else(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, other_checkpoint: Path, tiny_bundle: Path
) -> None:
    state, other = (load_checkpoint(path).state for path in (tiny_checkpoint, other_checkpoint))
    torch.save({"model": state, "model_ema": other}, tmp_path / "ema.pth")
    torch.save({"a": {"net": state}, "b": {"net": other}}, tmp_path / "two.pth")
    raw = cli("inspect", tmp_path / "ema.pth", "--weights", "raw", "--json")
    assert load_json(CheckpointInspection, raw.stdout).weights is WeightSet.RAW
    several = cli("inspect", tmp_path / "two.pth")
    assert (several.returncode, "a.net" in several.stderr) == (12, True)
    assert cli("inspect", tmp_path / "two.pth", "--key", "b").returncode == 0
    assert cli("inspect", tiny_bundle, "--key", "b").returncode == 2


def test_the_config_file_that_was_used_is_named(cli: Run, tiny_checkpoint: Path, tiny_config: Path) -> None:
    ran = cli("inspect", tiny_checkpoint, "--config", tiny_config, "--json")
    assert json.loads(ran.stdout)["config"] == str(tiny_config)
    assert json.loads(cli("inspect", tiny_checkpoint, "--json").stdout)["config"] is None
    assert "config file" in cli("inspect", tiny_checkpoint, "--config", tiny_config).stdout
