from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import riformer_deploy
from riformer_deploy.common.lazy_names import read_stub
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


HOMES = read_stub(Path(riformer_deploy.__file__).with_name("__init__.pyi"))
RESULTS = {"Checkpoint.path", "Bundle.graph_path.return", "Bundle.path_of.return", "Bundle.place_of.return"}
"""Where the library gives a path, rather than takes one."""


def test_all_and_dir_list_the_names_of_the_stub_file_and_each_is_its_module_s_own() -> None:
    assert sorted(vars(riformer_deploy)["__all__"]) == sorted(HOMES)
    assert HOMES.keys() | {"__version__"} <= set(dir(riformer_deploy))
    for name, home in HOMES.items():
        assert getattr(riformer_deploy, name) is getattr(importlib.import_module(home), name)


def _public_hints() -> Iterator[tuple[str, Any]]:
    """Every type in a public signature: of functions, and of classes' fields and methods."""
    for name in HOMES:
        thing = getattr(riformer_deploy, name)
        if inspect.isfunction(thing):
            yield from ((f"{name}.{key}", hint) for key, hint in typing.get_type_hints(thing).items())
        elif isinstance(thing, type) and not issubclass(thing, Enum):
            yield from _hints_of_class(name, thing)


def _hints_of_class(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        yield from ((f"{name}.{field.name}", hints[field.name]) for field in dataclasses.fields(kind))
    for key, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        is_own_init = key == "__init__" and not dataclasses.is_dataclass(kind)
        if inspect.isfunction(function) and (is_own_init or not key.startswith("_")):
            hints = typing.get_type_hints(function)
            yield from ((f"{name}.{key}.{part}", hint) for part, hint in hints.items())


def _parts(hint: Any) -> set[Any]:
    """The types that a type is made of: itself, or those in its brackets."""
    if isinstance(hint, list):  # the parameters of a callable
        return set().union(*map(_parts, hint))
    inner = typing.get_args(hint)
    return set().union(*map(_parts, inner)) if inner else {hint}


def test_every_type_in_a_public_signature_is_public() -> None:
    hints = list(_public_hints())
    assert len(hints) > 400
    public = {id(getattr(riformer_deploy, name)) for name in HOMES}
    missing = [
        f"{where}: {part.__qualname__}"
        for where, hint in hints
        for part in _parts(hint)
        if isinstance(part, type) and part.__module__.startswith("riformer_deploy") and id(part) not in public
    ]
    assert not missing


def test_text_is_taken_wherever_a_path_is() -> None:
    taking = {where: _parts(hint) for where, hint in _public_hints() if Path in _parts(hint)}
    assert taking.keys() >= RESULTS
    assert len(taking) > 20
    assert [where for where, parts in taking.items() if str not in parts and where not in RESULTS] == []


@pytest.mark.untraced
def test_text_does_for_a_path_from_the_checkpoint_to_every_use_of_the_bundle(
    tiny_checkpoint: Path, tiny_bundle_copy: Path, tmp_path: Path
) -> None:
    bundle, fused = str(tiny_bundle_copy), str(tmp_path / "deploy.pth")  # it was exported to text, too
    picture, data = str(tmp_path / "grey.png"), str(tmp_path / "data.npz")
    Image.new("RGB", (64, 80), "grey").save(picture)
    np.savez(data, images=np.zeros((3, 80, 64, 3), np.uint8), labels=np.arange(3))
    opened = riformer_deploy.Bundle.open(bundle)
    assert riformer_deploy.Bundle(bundle, opened.manifest, base=bundle).base == tiny_bundle_copy
    assert riformer_deploy.fuse_checkpoint(str(tiny_checkpoint), fused).output == fused
    assert isinstance(riformer_deploy.inspect_file(fused), riformer_deploy.CheckpointInspection)
    assert isinstance(riformer_deploy.inspect_file(bundle), riformer_deploy.BundleInspection)
    assert riformer_deploy.verify_bundle(bundle).status is riformer_deploy.Status.PASSED
    pictures = riformer_deploy.PictureFiles(paths=(picture,))
    assert riformer_deploy.find_pictures([tmp_path, Path(picture)]).paths == (Path(picture),) * 2
    assert len(riformer_deploy.predict_images(bundle, pictures).predictions) == 1
    features = riformer_deploy.FeatureOptions(output=str(tmp_path / "features.npz"))
    assert riformer_deploy.extract_features(bundle, pictures, features).shape == (1, 32)
    accuracy = riformer_deploy.accuracy_bundle(bundle, riformer_deploy.AccuracyOptions(data=data))
    assert accuracy.artifacts[0].images == 3
    options = riformer_deploy.BuildOptions(timing_cache=str(tmp_path / "cache"))
    lines = "\n".join(riformer_deploy.trtexec_lines(bundle, options))
    assert f"--timingCacheFile={tmp_path / 'cache'} " in lines


@pytest.mark.parametrize("as_given", [str, Path])
def test_an_export_refuses_the_folder_and_class_names_that_were_given_as_text_or_path(
    as_given: type[str | Path], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("one\n")
    options = riformer_deploy.ExportOptions(
        checkpoint=as_given(tiny_checkpoint), output=as_given(tmp_path), image_size_px=(64, 48)
    )
    with pytest.raises(riformer_deploy.RIFormerDeployError, match=re.escape(str(tmp_path))):
        riformer_deploy.export_checkpoint(options)
    named = dataclasses.replace(options, class_names=as_given(tmp_path / "notes.txt"))
    with pytest.raises(riformer_deploy.RIFormerDeployError, match=r"notes\.txt"):
        riformer_deploy.export_checkpoint(named)


def test_no_public_name_is_a_module_s_too_which_would_hide_it_once_imported() -> None:
    modules = {path.stem for path in Path(riformer_deploy.__file__).parent.iterdir()}
    assert modules & HOMES.keys() == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = riformer_deploy.nonsense  # type: ignore[attr-defined]  # a type checker says so, too


def test_importing_the_package_loads_neither_torch_nor_onnx_nor_numpy(python: Callable[[str], str]) -> None:
    program = """
import sys
import riformer_deploy
riformer_deploy.VARIANTS, riformer_deploy.RIFormerDeployError
print(sorted({"torch", "onnxruntime", "onnx", "numpy", "rich", "typer"} & set(sys.modules)))
"""
    assert python(program) == "[]"


@pytest.mark.slow
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
