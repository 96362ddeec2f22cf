from __future__ import annotations

import importlib.util
import json
import shutil
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
