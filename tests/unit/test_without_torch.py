"""What runs an exported bundle runs on a machine on which neither PyTorch nor the exporter is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.results import CandidateParity, ParityResult, Status

HIDDEN = ("torch", "onnxscript", "onnxsim")
_PROGRAM = """
import contextlib, importlib.metadata, io, json, sys

HIDDEN = json.loads(sys.argv[1])


class Hide:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"hidden: {name}", name=name)


find = importlib.metadata.Distribution.from_name


def from_name(name):
    if name in HIDDEN:
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)


sys.meta_path.insert(0, Hide)
importlib.metadata.Distribution.from_name = staticmethod(from_name)

from riformer_deploy_cli.main import run

told = []
for line in json.loads(sys.argv[2]):
    sys.argv = ["riformer-deploy", *line]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as end:
            code = end.code or 0
    imported = sorted({"PIL", "numpy", "onnx", *HIDDEN} & set(sys.modules))
    told.append([code, out.getvalue(), err.getvalue(), imported])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Path) -> Path:
    """The digits' bundle, the test's own."""
    return Path(shutil.copytree(digits_bundle, tmp_path_factory.mktemp("target") / "digits"))


@pytest.fixture(scope="module")
def told(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, digits_data: dict[str, NDArray[Any]]
) -> dict[str, tuple[int, str, str, list[str]]]:
    """Of every command, run in turn in one process without PyTorch: exit code, output, messages, imports."""
    folder = tmp_path_factory.mktemp("pictures")
    picture, data = folder / "0.png", folder / "data.npz"
    Image.fromarray(digits_data["val_images"][0]).save(picture)
    np.savez(data, val_images=digits_data["val_images"][:6], val_labels=digits_data["val_labels"][:6])
    quick = ("--rounds", "5", "--repeats", "1", "--warmup", "1", "--batch", "1", "--threads", "1", "--json")
    lines: dict[str, tuple[object, ...]] = {
        "models": ("models", "--json"),
        "inspect": ("inspect", bundle),
        "inspect json": ("inspect", bundle, "--json"),
        "doctor": ("doctor", "--json"),
        "predict": ("predict", picture, bundle, "--json"),
        "predict openvino": ("predict", picture, bundle, "--with", "openvino", "--json"),
        "serve triton": ("serve", "triton", bundle, "-o", folder / "models", "--json"),
        "bench onnx": ("bench", bundle, "--onnx", *quick),
        "bench openvino": ("bench", bundle, "--openvino", *quick),
        "bench engine": ("bench", bundle, "--engine", *quick),
        "accuracy": (
            "verify", "accuracy", bundle, "--data", data, "--with", "onnx", "--with", "openvino", "--json"
        ),
        "accuracy engine": ("verify", "accuracy", bundle, "--data", data, "--with", "engine", "--json"),
        "accuracy torch": ("verify", "accuracy", bundle, "--data", data, "--json"),
        "features": ("features", picture, bundle, "--with", "onnx", "--stage", "4", "-o", folder / "f.npz"),
        "parity": ("verify", "parity", bundle, "--json"),
    }  # fmt: skip
    commands = json.dumps([list(map(str, line)) for line in lines.values()])
    program = [sys.executable, "-c", _PROGRAM, json.dumps(HIDDEN), commands]
    ran = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    assert ran.returncode == 0, ran.stderr
    return dict(zip(lines, map(tuple, json.loads(ran.stdout)), strict=True))


def test_looking_at_a_bundle_and_at_the_models_imports_neither_numpy_nor_pillow(
    told: dict[str, tuple[int, str, str, list[str]]],
) -> None:
    for command in ("models", "inspect", "inspect json"):
        code, _, err, imported = told[command]
        assert (code, imported) == (0, []), err
    code, _, err, imported = told["doctor"]
    assert (code, imported) == (0, ["numpy"]), err  # ONNX Runtime, whose providers it tells, imports it


@pytest.mark.parametrize(
    "command",
    [
        "models",
        "inspect json",
        "doctor",
        "predict",
        "predict openvino",
        "serve triton",
        "bench onnx",
        "bench openvino",
        "accuracy",
    ],
)
def test_what_runs_an_exported_bundle_needs_neither_pytorch_nor_the_exporter(
    told: dict[str, tuple[int, str, str, list[str]]], command: str
) -> None:
    code, out, err, imported = told[command]
    assert (code, [name for name in imported if name in ("onnx", *HIDDEN)]) == (0, []), err
    assert json.loads(out)


@pytest.mark.parametrize("command", ["bench engine", "accuracy engine"])
def test_engines_are_looked_for_without_pytorch(
    told: dict[str, tuple[int, str, str, list[str]]], command: str
) -> None:
    _, out, _, imported = told[command]
    error = json.loads(out)["error"]
    assert (error["kind"], imported) == ("BundleError", ["PIL", "numpy"])
    assert "holds no TensorRT engine" in error["message"]


def test_what_needs_pytorch_says_so(told: dict[str, tuple[int, str, str, list[str]]]) -> None:
    error = json.loads(told["accuracy torch"][1])["error"]
    assert error["kind"] == "MissingDependencyError"
    assert 'pip install "torch>=2.9"' in error["message"]
    found = {item["name"]: item["health"] for item in json.loads(told["doctor"][1])["findings"]}
    assert {found[name] for name in HIDDEN} == {"missing"}


def test_stages_of_a_graph_need_no_pytorch(told: dict[str, tuple[int, str, str, list[str]]]) -> None:
    code, out, err, imported = told["features"]
    assert (code, imported) == (0, ["PIL", "numpy", "onnx"]), err
    assert "stage4 [1, 128, 2, 2] float32" in out


@pytest.mark.untraced
def test_parity_is_compared_by_the_reference_that_the_bundle_keeps(
    told: dict[str, tuple[int, str, str, list[str]]], digits_bundle: Path, tmp_path: Path
) -> None:
    code, out, err, imported = told["parity"]
    assert (code, imported) == (0, ["PIL", "numpy", "onnx"]), err
    found = load_json(ParityResult, out)
    assert (found.status, found.reference_stored) == (Status.PASSED, True)
    reasons = {item.reason for item in found.skipped if item.config.runtime is RuntimeKind.PYTORCH}
    assert len(reasons) == 1
    assert "PyTorch is not installed" in reasons.pop()
    copy = Path(shutil.copytree(digits_bundle, tmp_path / "copy"))
    with_torch = verify_bundle(copy)
    assert with_torch.stored_reference_relative_l2 is not None
    assert with_torch.stored_reference_relative_l2 < 1e-12
    assert not with_torch.reference_stored
    assert _figures(found.candidates) == pytest.approx(_figures(with_torch.candidates[3:]), rel=1e-3)
    assert found.reference == with_torch.reference
    assert Bundle.open(copy).manifest.reference_outputs is not None


def _figures(candidates: tuple[CandidateParity, ...]) -> dict[str, float | None]:
    """Relative L2 errors by what they are of."""
    found: dict[str, float | None] = {}
    for item in candidates:
        found |= {f"{item.name} {output.name}": output.deviation.relative_l2 for output in item.outputs}
        found |= {f"{item.name} {stage.tensor}": stage.deviation.relative_l2 for stage in item.stages}
    return found
