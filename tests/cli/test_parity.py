from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.results import ParityResult, Status

Run = Callable[..., CompletedProcess[str]]

CANDIDATES = [
    "PyTorch float32, training form",
    "PyTorch float32, deploy form",
    "PyTorch float32, folded form",
    "ONNX Runtime fp32",
    "OpenVINO fp32",
]


def _stored(directory: Path, kind: str = "parity") -> ParityResult:
    bundle = Bundle.open(directory)
    path = bundle.path_of(bundle.manifest.results[kind])
    return load_json(ParityResult, path.read_text(encoding="utf-8"))


def test_json_is_the_result_that_the_bundle_then_holds(cli: Run, tiny_bundle_copy: Path) -> None:
    ran = cli("verify", "parity", tiny_bundle_copy, "--json")
    assert ran.returncode == 0
    result = load_json(ParityResult, ran.stdout)
    assert set(json.loads(ran.stdout)) == {field.name for field in dataclasses.fields(ParityResult)}
    assert [candidate.name for candidate in result.candidates] == CANDIDATES
    assert result.status is Status.PASSED
    assert _stored(tiny_bundle_copy) == result
    steps = [line.split(", about ")[0] for line in ran.stderr.splitlines()]  # without the time remaining
    assert steps == ["PyTorch float64, training form", *CANDIDATES]


def test_text_shows_every_candidate_and_the_default_limits(cli: Run, tiny_bundle_copy: Path) -> None:
    ran = cli("verify", "parity", tiny_bundle_copy)
    assert ran.returncode == 0
    for name in CANDIDATES:
        assert ran.stdout.count(f"│ {name} ") == 2  # its outputs and its stages
    assert "limits changed" not in ran.stdout
    assert "Reference: PyTorch float64, training form; 14 images" in ran.stdout
    assert ran.stdout.endswith("Parity: passed\n")


@pytest.mark.untraced
def test_failed_parity_exits_1_with_the_figures_and_marks_the_limits_as_the_user_s(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    before = _stored(tiny_bundle_copy)
    assert before.status is Status.PASSED
    ran = cli("verify", "parity", tiny_bundle_copy, "--rtol", "0", "--atol", "1e-12")
    assert ran.returncode == 1
    limits = "Tolerance of fp32: |difference| <= 1e-12 + 0 |reference|, stages <= 1e-05"
    assert f"{limits} (limits changed by the user)\n" in ran.stdout
    lines = [line for line in ran.stdout.splitlines() if line.startswith("Parity: failed: ")]
    assert len(lines) == len(CANDIDATES) == ran.stdout.count("times what 1e-12 + 0 |reference| allows")
    for name, line in zip(CANDIDATES, lines, strict=True):
        assert line.startswith(f"Parity: failed: {name} (")
        assert "logits: |difference| up to " in line
        assert "(on synthetic images" in line
    assert "error" not in ran.stderr
    assert _stored(tiny_bundle_copy) == before
    kept = _stored(tiny_bundle_copy, "parity-user")
    assert kept.status is Status.FAILED
    assert {candidate.tolerance.stated for candidate in kept.candidates} == {"user"}
    assert all(item.deviation.max_abs for candidate in kept.candidates for item in candidate.outputs)


def test_a_stage_tolerance_fails_the_stages_alone_and_names_the_first_bad_block(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    ran = cli("verify", "parity", tiny_bundle_copy, "--stage-tolerance", "1e-15", "--json")
    assert ran.returncode == 1
    for candidate in load_json(ParityResult, ran.stdout).candidates:
        assert {item.status for item in candidate.outputs} == {Status.PASSED}
        assert candidate.stages[0].status is Status.FAILED
        assert candidate.first_bad_block == "backbone.network.0.0"
        assert candidate.status is Status.FAILED


@pytest.mark.parametrize(("option", "value"), [("--rtol", "-1"), ("--atol", "nan"), ("--rtol", "inf")])
def test_limits_that_mean_nothing_are_refused(cli: Run, tiny_bundle: Path, option: str, value: str) -> None:
    ran = cli("verify", "parity", tiny_bundle, option, value)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "must be a finite number of at least 0" in ran.stderr


@pytest.mark.untraced
def test_the_bundle_that_the_current_folder_is_is_found(
    cli: Run, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle_copy)
    assert cli("verify", "parity").stdout.endswith("Parity: passed\n")


@pytest.mark.untraced
def test_the_one_bundle_in_the_current_folder_is_found(
    cli: Run, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle_copy.parent)
    (tiny_bundle_copy.parent / "other folder").mkdir()
    assert cli("verify", "parity").stdout.endswith("Parity: passed\n")


@pytest.mark.parametrize("command", [("verify", "parity"), ("bench",)], ids=" ".join)
def test_among_several_bundles_none_is_chosen_and_all_are_named(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").touch()
    monkeypatch.chdir(tmp_path)
    ran = cli(*command)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert "several bundles" in ran.stderr
    assert "  - first\n  - second\n" in ran.stderr


@pytest.mark.parametrize("command", [("verify", "parity"), ("bench",)], ids=" ".join)
def test_a_folder_with_no_bundle_in_it_is_told_how_to_make_one(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(*command)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert "riformer-deploy export" in ran.stderr


@pytest.mark.usefixtures("no_gpu")
def test_engines_that_cannot_run_here_are_listed_with_every_reason_and_do_not_fail_the_parity_report(
    cli: Run, engine_bundle_copy: Path
) -> None:
    ran = cli("verify", "parity", engine_bundle_copy)
    assert ran.returncode == 0, ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("skipped: ")]
    assert line.startswith("skipped: TensorRT-RTX fp32: there is no NVIDIA GPU to run on")
    assert "Parity: passed; 1 engine NOT verified: TensorRT-RTX fp32" in ran.stdout
    assert (
        _stored(engine_bundle_copy).unverified == ()
    )  # of the models; each engine has a parity report of its own
    assert [candidate.name for candidate in _stored(engine_bundle_copy).candidates] == CANDIDATES


@pytest.mark.usefixtures("noisy_openvino")
def test_another_runtimes_failure_passes_the_export_fails_the_parity_report_and_keeps_predict_from_it(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    bundle, line = tmp_path / "out", "OpenVINO fp32 (model.fp32.onnx), logits: |difference| up to "
    ran = cli("export", tiny_checkpoint, "-o", bundle, "--image-size", "64x48")
    assert ran.returncode == 0, ran.stderr
    assert f"note: {line}" in ran.stderr
    assert f"Parity: failed: {line}" in ran.stdout
    assert "\nParity of the files: passed\n" in ran.stdout

    ran = cli("verify", "parity", bundle)
    assert ran.returncode == 1
    failed, files = ran.stdout.splitlines()[-2:]
    assert failed.startswith(f"Parity: failed: {line}")
    assert failed.endswith("(on synthetic images, this runtime's own verdict)")
    assert files == "Parity of the files: passed"
    assert (_stored(bundle).status, len(_stored(bundle).failed)) == (Status.PASSED, 1)
    assert cli("verify", "parity", bundle, "--json").returncode == 1
    assert re.search(r"│ failed parity +│ OpenVINO fp32 \(model", cli("inspect", bundle).stdout)

    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=pixels, labels=np.arange(2))
    Image.fromarray(pixels[0]).save(tmp_path / "0.png")
    ran = cli("predict", tmp_path / "0.png", bundle, "--with", "openvino")
    assert (ran.returncode, ran.stdout) == (30, "")
    assert f"  - {line}" in ran.stderr
    assert "Choose another --with" in ran.stderr
    assert cli("predict", tmp_path / "0.png", bundle).returncode == 0


@pytest.mark.usefixtures("noisy_openvino")
def test_what_failed_parity_is_measured_with_a_warning(
    cli: Run, tmp_path: Path, tiny_bundle_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert cli("verify", "parity", tiny_bundle_copy).returncode == 1
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (2, 64, 48, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=pixels, labels=np.arange(2))
    warned = "failed parity: OpenVINO fp32 (model.fp32.onnx), logits: "
    quick = ("--openvino", "--rounds", "5", "--repeats", "1", "--warmup", "1", "--batch", "1")
    for command in (
        ("verify", "accuracy", tiny_bundle_copy, "--data", tmp_path / "noise.npz", "--with", "openvino"),
        ("bench", tiny_bundle_copy, *quick),
    ):
        caplog.clear()
        ran = cli(*command)
        assert (ran.returncode, caplog.text.count(warned)) == (0, 1), ran.stderr
        assert "OpenVINO fp32" in ran.stdout


def test_the_parity_of_a_part_does_not_replace_that_of_all(
    cli: Run, tiny_bundle_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = (tiny_bundle_copy / "parity.json").read_bytes()
    ran = cli("verify", "parity", tiny_bundle_copy, "--with", "torch,onnx", "--precision", "fp32", "--json")
    assert ran.returncode == 0, ran.stderr
    names = [item["config"]["runtime"] for item in json.loads(ran.stdout)["candidates"]]
    assert names == ["pytorch"] * 3 + ["onnxruntime"]
    assert (tiny_bundle_copy / "parity.json").read_bytes() == stored
    assert "the parity of a part of the models was not stored" in caplog.text
