from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import riformer_deploy
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """``python(program)``: what it prints, run by this interpreter in a process that imported nothing yet."""

    def run(program: str) -> str:
        done = subprocess.run(  # noqa: S603 (programs of this file)
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_all_names_exactly_what_has_a_home() -> None:
    assert set(riformer_deploy.__all__) == set(riformer_deploy._HOMES)
    assert len(set(riformer_deploy.__all__)) == len(riformer_deploy.__all__)


@pytest.mark.parametrize("name", sorted(riformer_deploy._HOMES))
def test_a_public_name_is_its_module_s_own(name: str) -> None:
    home = importlib.import_module(f"riformer_deploy.{riformer_deploy._HOMES[name]}")
    assert getattr(riformer_deploy, name) is getattr(home, name)
    assert getattr(riformer_deploy, name) is getattr(home, name)  # the second time as the first


def test_no_public_name_is_a_module_s_too_which_would_hide_it_once_imported() -> None:
    modules = {path.stem for path in Path(riformer_deploy.__file__).parent.iterdir()}
    assert modules & set(riformer_deploy.__all__) == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = riformer_deploy.nonsense


def test_importing_the_package_loads_neither_torch_nor_onnx_nor_numpy(python: Callable[[str], str]) -> None:
    program = """
import sys
import riformer_deploy
riformer_deploy.VARIANTS, riformer_deploy.RIFormerDeployError
print(sorted({"torch", "onnxruntime", "onnx", "numpy", "rich", "typer"} & set(sys.modules)))
"""
    assert python(program) == "[]"


def test_fuse_is_the_function_whatever_was_imported_before_it(python: Callable[[str], str]) -> None:
    program = """
from riformer_deploy import export_checkpoint, fold, fuse
import riformer_deploy
print(type(fuse).__name__, type(riformer_deploy.fuse).__name__)
"""
    assert python(program) == "function function"


def test_get_model_fuse_and_fold_compute_the_same_function(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    model = riformer_deploy.get_model(tiny_architecture, tiny_checkpoint).double()
    images = torch.randn(2, 3, 64, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = model(images)
    assert scores.shape == (2, 7)
    for change, form in ((riformer_deploy.fuse, Form.DEPLOY), (riformer_deploy.fold, Form.FOLDED)):
        changed = change(model)
        assert isinstance(changed, RIFormer)
        assert changed.form is form
        torch.testing.assert_close(changed(images), scores, rtol=1e-9, atol=1e-9)
    assert model.form is Form.TRAINING


def test_extract_feat_gives_the_pooled_features_that_the_head_scores(
    tiny_architecture: Architecture, tiny_state: dict[str, Tensor], tiny_checkpoint: Path
) -> None:
    model = riformer_deploy.get_model(tiny_architecture, str(tiny_checkpoint))
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    (features,) = model.extract_feat(images)
    assert features.shape == (2, tiny_architecture.embed_dims[-1])
    scores = features @ tiny_state["head.fc.weight"].T + tiny_state["head.fc.bias"]
    torch.testing.assert_close(scores, model(images))
