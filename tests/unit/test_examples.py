from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.model.architecture import Form
from riformer_deploy.serving.classifier import Classifier, Prediction


def load(program: Path) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(program.stem, program)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.mark.slow
def test_fine_tuning_lowers_the_loss_and_what_it_made_is_exported(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load(repository / "examples" / "fine_tune.py")
    losses = example.main(tmp_path, steps=20, every=4, batch=16)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    manifest = Bundle.open(tmp_path / "even-or-odd").manifest
    assert manifest.model.class_names == ("even", "odd")
    assert manifest.source.form is Form.TRAINING
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].rpartition(" ")[2] == lines[2].rpartition(" ")[2]  # fusing changes no answer
    assert lines[3].endswith("parity passed")


def test_the_program_without_the_toolkit_gives_the_same_scores(
    digits_bundle: Path, repository: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["model"]["preprocessing"] |= {"resize_short_edge_px": 72, "channel_order": "BGR"}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    pictures = [tmp_path / "wide.png", tmp_path / "high.png"]
    chance = np.random.default_rng(0)
    for path, size in zip(pictures, ((90, 131), (113, 77)), strict=True):
        Image.fromarray(chance.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    program = repository / "examples" / "embed_onnx.py"
    assert "riformer_deploy" not in program.read_text(encoding="utf-8")
    scores = load(program).main(folder, [str(path) for path in pictures])
    with Classifier.open(folder) as classifier:
        found = [item for item in classifier.classify(pictures, top=10) if isinstance(item, Prediction)]
    expected = [[g.score for g in sorted(item.guesses, key=lambda g: g.label)] for item in found]
    assert scores.tolist() == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler (g++)")
def test_the_program_in_cpp_compiles_against_tensorrt_s_signatures_and_prints_the_first_classes(
    repository: Path, tmp_path: Path
) -> None:
    program, plan, pixels = tmp_path / "classify", tmp_path / "plan", tmp_path / "pixels"
    source, headers = repository / "examples" / "cpp" / "classify.cpp", repository / "tests" / "data" / "cpp"
    strict = ("-std=c++17", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["g++", *strict, "-I", headers, source, "-o", program], check=True)  # noqa: S603, S607
    plan.write_bytes(b"plan")
    logits = np.array([1, 5, 2, 5, 0, -3], np.float32)
    logits.tofile(pixels)
    ran = subprocess.run([program, plan, pixels], capture_output=True, text=True, check=True)  # noqa: S603
    printed = [line.split() for line in ran.stdout.splitlines()]
    assert [int(label) for label, _ in printed] == [1, 3, 2, 0, 4]
    scores = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose([float(s) for _, s in printed], scores[[1, 3, 2, 0, 4]], atol=1e-6)
    for wrong, reason in ((source, "does not fit this TensorRT"), (tmp_path / "gone", "cannot be read")):
        ran = subprocess.run([program, wrong, pixels], capture_output=True, text=True, check=False)  # noqa: S603
        assert (ran.returncode, reason in ran.stderr) == (1, True)
    pixels.write_bytes(b"short")
    ran = subprocess.run([program, plan, pixels], capture_output=True, text=True, check=False)  # noqa: S603
    assert (ran.returncode, "not of the plan's size" in ran.stderr) == (1, True)
