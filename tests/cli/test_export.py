from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.api.export import ExportReport
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.variants import Variant

pytestmark = pytest.mark.usefixtures("without_openvino")

Run = Callable[..., CompletedProcess[str]]


def _files(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def test_json_is_the_report_and_the_bundle_is_named_after_the_checkpoint(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("export", tiny_checkpoint, "--image-size", "64x48", "--json")
    assert ran.returncode == 0, ran.stderr
    report = load_json(ExportReport, ran.stdout)
    assert set(json.loads(ran.stdout)) == {field.name for field in dataclasses.fields(ExportReport)}
    assert ran.stderr.splitlines()[:3] == ["loading the checkpoint", "fusing", "exporting fp32 to ONNX"]
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny"]
    assert (report.bundle, report.status) == ("tiny", Status.PASSED)
    manifest = Bundle.open(tmp_path / "tiny").manifest
    assert (manifest.model, manifest.source, manifest.files) == (report.model, report.source, report.files)
    assert report.source.sha256 == sha256_of(tiny_checkpoint)
    assert report.model.preprocessing.crop_px == (64, 48)
    assert report.model.class_names == tuple(f"class {index}" for index in range(7))
    recorded = {record.path: record.sha256 for record in report.files}
    found = _files(tmp_path / "tiny")
    del found["bundle.json"]
    assert found == recorded
    assert set(found) == {"training.pth", "deploy.pth", "model.fp32.onnx", "parity.json", "reference.npz"}
    stored = (tmp_path / "tiny" / "parity.json").read_text(encoding="utf-8")
    assert load_json(ParityResult, stored) == report.parity


def test_text_shows_figures_files_and_the_size_in_the_order_it_was_typed(
    cli: Run, tmp_path: Path, ema_checkpoint: Path, other_checkpoint: Path
) -> None:
    target = tmp_path / "raw bundle [x]"
    options = ("--weights", "raw", "--image-size", "64x48", "--num-classes", "7")
    ran = cli("export", ema_checkpoint, "-o", target, *options)
    assert ran.returncode == 0, ran.stderr
    source = Bundle.open(target).manifest.source
    assert (source.weights, source.form) == (WeightSet.RAW, Form.TRAINING)
    assert source.weights_sha256 == load_checkpoint(other_checkpoint).weights_sha256
    assert ran.stdout.startswith("ema.pth: custom, layers [1, 1, 2, 1], training form, ")
    assert "Parity: passed" in ran.stdout
    assert "raw bundle [x]" in re.sub(r"\s+", " ", ran.stdout)
    for record in Bundle.open(target).manifest.files:
        assert record.path in ran.stdout
        assert record.sha256[:16] in ran.stdout
    assert "64x48 px" in ran.stdout
    assert "48x64" not in ran.stdout


@pytest.mark.untraced
def test_a_fixed_batch_and_a_newer_opset_are_what_the_graph_has(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    target = tmp_path / "fixed"
    options = ("--image-size", "64x48", "--batch", "2", "--opset", "21")
    ran = cli("export", tiny_checkpoint, "-o", target, *options, "--json")
    assert ran.returncode == 0, ran.stderr
    report = load_json(ExportReport, ran.stdout)
    assert report.parity.inputs.batches == (2, 2, 2, 2)
    graph = Bundle.open(target).manifest.onnx[0]
    assert (graph.opset, graph.batch, graph.inputs[0].shape) == (21, 2, (2, 3, 64, 48))

    inspected = cli("inspect", target / graph.file.path, "--json")
    assert json.loads(inspected.stdout)["opset"] == 21
    checkpoint = json.loads(cli("inspect", tiny_checkpoint, "--json").stdout)
    assert checkpoint["flops"] is None  # nothing in it says its size

    timed = cli("bench", target, "--onnx", "--rounds", "5", "--repeats", "1", "--warmup", "1", "--batch", "3")
    assert timed.returncode == 50
    assert "takes batch 2 only, not 3" in timed.stderr


def test_an_assumed_image_size_is_noted_on_stderr(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, tiny_variants: tuple[Variant, ...]
) -> None:
    ran = cli("export", tiny_checkpoint, "-o", tmp_path / "assumed", "--json")
    assert ran.returncode == 0, ran.stderr
    (note,) = [line for line in ran.stderr.splitlines() if line.startswith("note: ")]
    assert "image size 64 px is assumed" in note
    assert "riformer-tiny-64 and riformer-tiny-96" in note
    report = load_json(ExportReport, ran.stdout)
    assert note == f"note: {report.notes[0]}"
    assert report.model.variant == tiny_variants[0].name
    assert report.model.preprocessing.source == "assumed"


@pytest.mark.untraced
def test_failed_parity_exits_1_prints_the_figures_and_writes_nothing(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    options = ("--image-size", "64", "--rtol", "0", "--atol", "1e-12")
    ran = cli("export", tiny_checkpoint, "-o", tmp_path / "new" / "folder" / "bundle", *options)
    assert ran.returncode == 1
    assert "Parity: failed" in ran.stdout
    assert "limits changed by the user" in ran.stdout
    assert "Parity failed: no bundle was written." in ran.stdout
    assert "note: PyTorch float32, training form, itself misses the tolerance at 64x64 px" in ran.stderr
    assert "note: parity ran on synthetic images" in ran.stderr
    for name in ("PyTorch float32, folded form", "ONNX Runtime fp32"):
        assert re.search(rf"│ {name} +│ logits +│ +\d\.\d\de-\d\d │.*│ failed ", ran.stdout)
    assert "error" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_is_kept_where_no_command_takes_it_for_a_bundle(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--image-size", "64", "--atol", "1e-12", "--rtol", "0", "--keep-failed")
    ran = cli("export", tiny_checkpoint, "-o", "bundle", *options, "--json")
    assert ran.returncode == 1
    folder = tmp_path / "bundle.failed"
    report = load_json(ExportReport, ran.stdout)
    assert (report.kept, report.bundle, list(tmp_path.iterdir())) == (str(folder), None, [folder])
    made = {"training.pth", "deploy.pth", "model.fp32.onnx", "parity.json"}
    assert set(_files(folder)) == {*made, "failed-export.json"}
    stored = load_json(Manifest, (folder / "failed-export.json").read_text(encoding="utf-8"))
    assert {record.path: record.sha256 for record in stored.files}.items() <= _files(folder).items()
    assert cli("inspect", folder / "model.fp32.onnx").returncode == 0
    for line in (("inspect", folder), ("predict", "x.png", "--bundle", folder), ("bench", folder)):
        refused = cli(*line)
        assert refused.returncode not in (0, 1), line
    assert "is a failed export that was kept for inspection, not a bundle" in cli("bench", folder).stderr
    assert "neither is nor holds a bundle" in cli("bench").stderr
    assert cli("export", tiny_checkpoint, "-o", folder, "--image-size", "64").returncode == 32


def test_a_failed_export_replaces_only_an_earlier_one(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, tiny_bundle_copy: Path
) -> None:
    before, folder = _files(tiny_bundle_copy), tmp_path / "bundle.failed"
    options = ("--image-size", "64x48", "--atol", "1e-12", "--rtol", "0", "--keep-failed")
    folder.mkdir()
    ran = cli("export", tiny_checkpoint, "-o", tiny_bundle_copy, *options)
    assert (ran.returncode, list(folder.iterdir())) == (32, [])
    assert "exists and is not one" in ran.stderr
    (folder / "failed-export.json").touch()
    (folder / "model.int8.onnx").touch()
    assert cli("export", tiny_checkpoint, "-o", tiny_bundle_copy, *options).returncode == 1
    assert not (folder / "model.int8.onnx").exists()
    assert (folder / "model.fp32.onnx").is_file()
    assert _files(tiny_bundle_copy) == before


@pytest.mark.untraced
def test_failed_parity_with_json_reports_it_and_keeps_the_bundle_that_was_there(
    cli: Run, tiny_bundle_copy: Path, tiny_checkpoint: Path
) -> None:
    before = _files(tiny_bundle_copy)
    options = ("--image-size", "64", "--rtol", "0", "--atol", "1e-12")
    ran = cli("export", tiny_checkpoint, "-o", tiny_bundle_copy, *options, "--json")
    assert ran.returncode == 1
    report = load_json(ExportReport, ran.stdout)
    assert (report.status, report.bundle) == (Status.FAILED, None)
    assert report.parity.status is Status.FAILED
    assert {candidate.tolerance.stated for candidate in report.parity.candidates} == {"user"}
    assert _files(tiny_bundle_copy) == before
    assert report.files == (), "files are told of that were never written"


def test_another_checkpoint_s_bundle_is_kept_and_replaced_only_with_force(
    cli: Run, tiny_bundle_copy: Path, tiny_checkpoint: Path, other_checkpoint: Path
) -> None:
    before = _files(tiny_bundle_copy)
    line = ("export", other_checkpoint, "-o", tiny_bundle_copy, "--image-size", "64x48")
    ran = cli(*line)
    assert (ran.returncode, ran.stdout) == (32, "")
    assert "is the bundle of another checkpoint or of its other weights (tiny.pth" in ran.stderr
    assert sha256_of(tiny_checkpoint)[:12] in ran.stderr
    assert "--force" in ran.stderr
    assert "exporting fp32 to ONNX" not in ran.stderr  # told before the work, not after it
    assert _files(tiny_bundle_copy) == before

    assert cli(*line, "--force").returncode == 0
    assert Bundle.open(tiny_bundle_copy).manifest.source.sha256 == sha256_of(other_checkpoint)


def test_foreign_files_are_never_replaced_not_even_with_force(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    ran = cli("export", tiny_checkpoint, "-o", tmp_path / "mine", "--image-size", "64", "--force")
    assert (ran.returncode, ran.stdout) == (32, "")
    assert "thesis.txt" in ran.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_checkpoint_without_a_suffix_is_not_taken_for_the_folder(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_checkpoint: Callable[..., Path]
) -> None:
    path = write_checkpoint(name="weights")
    content = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    ran = cli("export", "weights", "--image-size", "64")
    assert ran.returncode == 32
    assert "weights is a file; a bundle is a folder" in ran.stderr
    assert path.read_bytes() == content


def test_a_config_file_says_the_size_of_the_images(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, tiny_config: Path
) -> None:
    config = tmp_path / "square.py"
    config.write_text(tiny_config.read_text().replace("crop_size=48", "crop_size=64"))
    ran = cli("export", tiny_checkpoint, "--config", config, "-o", tmp_path / "bundle")
    assert ran.returncode == 0, ran.stderr
    assert "64x64 px" in ran.stdout
    ran = cli("inspect", tmp_path / "bundle", "--config", config)
    assert ran.returncode == 2
    assert "is none" in ran.stderr
