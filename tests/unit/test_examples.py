from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.model.architecture import Form


def test_fine_tuning_lowers_the_loss_and_what_it_made_is_exported(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("fine_tune", repository / "examples" / "fine_tune.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.main(tmp_path, steps=20, every=4, batch=16)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    manifest = Bundle.open(tmp_path / "even-or-odd").manifest
    assert manifest.model.class_names == ("even", "odd")
    assert manifest.source.form is Form.TRAINING
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].rpartition(" ")[2] == lines[2].rpartition(" ")[2]  # fusing changes no answer
    assert lines[3].endswith("parity passed")
