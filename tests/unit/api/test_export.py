from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from riformer_deploy.api import export
from riformer_deploy.api.bench import bench_bundle
from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import Group, Precision, WeightSet
from riformer_deploy.common.errors import (
    BundleConflictError,
    CheckpointMismatchError,
    MissingDependencyError,
    OptionError,
    RIFormerDeployError,
)
from riformer_deploy.common.serialization import load_json
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import Tolerance
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fuse
from riformer_deploy.model.variants import get_variant

pytestmark = pytest.mark.usefixtures("without_openvino")

SIZE = (64, 48)
IMPOSSIBLE = {Precision.FP32: Tolerance(rtol=1e-300, atol=1e-300, stage_relative_l2=1e-300)}
State = dict[str, Tensor]


def _options(checkpoint: Path, output: Path, **changes: Any) -> ExportOptions:
    return ExportOptions(**{"checkpoint": checkpoint, "output": output, "image_size_px": SIZE, **changes})


def _content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_bundle_holds_weights_graph_and_parity_report_each_with_its_parent(
    tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    bundle = Bundle.open(tiny_bundle)
    manifest, source = bundle.manifest, load_checkpoint(tiny_checkpoint)
    assert {path.name for path in tiny_bundle.iterdir()} == {
        *(record.path for record in manifest.files),
        "bundle.json",
    }
    assert manifest.source.sha256 == source.sha256
    assert manifest.source.weights_sha256 == source.weights_sha256
    assert (manifest.source.file_name, manifest.source.weights) == ("tiny.pth", WeightSet.ONLY)
    training, deploy = manifest.weights
    assert (training.form, deploy.form) == (Form.TRAINING, Form.DEPLOY)
    assert training.file.parent_sha256 == source.sha256
    assert deploy.file.parent_sha256 == manifest.onnx[0].file.parent_sha256 == training.file.sha256
    assert manifest.results["parity"].parent_sha256 == training.file.sha256
    for record in manifest.files:
        path = bundle.path_of(record)
        assert path.stat().st_size == record.size_bytes
    assert manifest.model.architecture == source.architecture
    assert manifest.model.class_names == tuple(f"class {index}" for index in range(7))
    assert manifest.model.variant is None
    assert manifest.model.preprocessing.crop_px == SIZE


def test_a_bundles_deploy_weights_are_the_fused_ones(tiny_bundle: Path, tiny_model: RIFormer) -> None:
    stored = torch.load(tiny_bundle / "deploy.pth", weights_only=True)["state_dict"]
    expected = fuse(tiny_model).state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[key], expected[key]) for key in expected)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.untraced
def test_an_export_whose_parity_fails_writes_nothing(
    tmp_path: Path, tiny_bundle_copy: Path, tiny_checkpoint: Path, *, existing: bool
) -> None:
    output = tiny_bundle_copy if existing else tmp_path / "new"
    before = _content(tiny_bundle_copy)
    report = export_checkpoint(_options(tiny_checkpoint, output, tolerances=IMPOSSIBLE))
    assert report.status is report.parity.status is Status.FAILED
    assert report.bundle is None
    assert _content(tiny_bundle_copy) == before
    assert output.exists() is existing
    assert report.files == ()  # there are none


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize(
    "step", ["loading", "fusing", "exporting fp32 to ONNX", "proving parity: ONNX Runtime"]
)
def test_an_interrupted_export_leaves_no_trace(
    tmp_path: Path, tiny_bundle_copy: Path, tiny_checkpoint: Path, step: str, *, existing: bool
) -> None:
    def interrupt(said: str) -> None:
        if said.startswith(step):
            raise KeyboardInterrupt

    output = tiny_bundle_copy if existing else tmp_path / "new"
    before = _content(tiny_bundle_copy)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(_options(tiny_checkpoint, output), interrupt)
    assert _content(tiny_bundle_copy) == before
    assert list(tmp_path.iterdir()) == [tiny_bundle_copy]


def test_an_interrupted_export_leaves_no_folders_above_the_bundle_either(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    def interrupt(said: str) -> None:
        if said == "fusing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(_options(tiny_checkpoint, tmp_path / "a" / "b"), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_another_checkpoints_bundle_is_replaced_only_by_force(
    tiny_bundle_copy: Path, other_checkpoint: Path
) -> None:
    bench = BenchOptions(batches=(1,), rounds=5, repeats=1, warmup=1, threads=1)
    bench_bundle(tiny_bundle_copy, (Group.ONNX,), bench)
    before = _content(tiny_bundle_copy)
    assert "latency.json" in before
    with pytest.raises(BundleConflictError, match="bundle of another checkpoint"):
        export_checkpoint(_options(other_checkpoint, tiny_bundle_copy))
    assert _content(tiny_bundle_copy) == before
    report = export_checkpoint(_options(other_checkpoint, tiny_bundle_copy, force=True))
    assert report.status is Status.PASSED
    bundle = Bundle.open(tiny_bundle_copy)
    assert bundle.manifest.source.sha256 == load_checkpoint(other_checkpoint).sha256
    assert bundle.manifest.results.keys() == {"parity"}  # timings of the old models are gone
    assert {path.name for path in tiny_bundle_copy.iterdir()} == set(before) - {"latency.json"}
    assert all(bundle.path_of(record) for record in bundle.manifest.files)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_files_is_never_written_to(
    tmp_path: Path, tiny_checkpoint: Path, *, force: bool
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleConflictError, match=r"thesis\.tex"):
        export_checkpoint(_options(tiny_checkpoint, tmp_path, force=force))
    assert _content(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.untraced
def test_the_same_checkpoint_again_with_a_fixed_batch_replaces_the_bundle(
    tiny_bundle_copy: Path, tiny_checkpoint: Path, onnx_of: Callable[[Path], Path]
) -> None:
    report = export_checkpoint(_options(tiny_checkpoint, tiny_bundle_copy, batch=2, opset=21))
    assert report.status is Status.PASSED
    assert report.bundle == str(tiny_bundle_copy)
    (artifact,) = Bundle.open(tiny_bundle_copy).manifest.onnx
    assert (artifact.batch, artifact.opset) == (2, 21)
    assert report.parity.inputs.batches == (2, 2, 2, 2)
    stored = load_json(ParityResult, (tiny_bundle_copy / "parity.json").read_text(encoding="utf-8"))
    assert stored == report.parity
    assert onnx.load(onnx_of(tiny_bundle_copy)).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_a_deploy_form_checkpoint_is_exported_and_proven_against_itself(
    tmp_path: Path, write_checkpoint: Callable[..., Path], tiny_model: RIFormer
) -> None:
    checkpoint = write_checkpoint(fuse(tiny_model).state_dict(), legacy=True)
    report = export_checkpoint(_options(checkpoint, tmp_path / "out", batch=2))
    assert report.status is Status.PASSED
    assert report.parity.reference == "PyTorch float64, deploy form"
    manifest = Bundle.open(tmp_path / "out").manifest
    assert [item.form for item in manifest.weights] == [Form.DEPLOY]
    assert manifest.source.form is Form.DEPLOY
    images = synthetic_images(2, SIZE, seed=9)
    found = OnnxRuntime(tmp_path / "out" / manifest.onnx[0].file.path).run(images)["logits"]
    np.testing.assert_allclose(found, PyTorchRuntime(tiny_model).run(images)["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.untraced
def test_raw_weights_are_exported_where_they_are_asked_for_and_recorded_as_such(
    tmp_path: Path,
    write_checkpoint: Callable[..., Path],
    tiny_architecture: Architecture,
    filled: Callable[..., State],
    other_checkpoint: Path,
) -> None:
    raw = {f"module.{key}": value for key, value in filled(tiny_architecture, seed=1).items()}
    checkpoint = write_checkpoint(ema_state_dict={**raw, "steps": torch.tensor(3)})
    report = export_checkpoint(_options(checkpoint, tmp_path / "out", weights=WeightSet.RAW))
    source = Bundle.open(tmp_path / "out").manifest.source
    assert report.source == source
    assert source.weights is WeightSet.RAW
    assert source.weights_sha256 == load_checkpoint(other_checkpoint).weights_sha256
    images = synthetic_images(2, SIZE, seed=9)
    found = OnnxRuntime(tmp_path / "out" / "model.fp32.onnx").run(images)["logits"]
    expected = PyTorchRuntime(model_of(other_checkpoint)).run(images)["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"image_size_px": None}, OptionError),
        ({"image_size_px": (2, 2)}, OptionError),
        ({"batch": 0}, OptionError),
        ({"num_classes": 8}, CheckpointMismatchError),
        ({"variant": get_variant("riformer-s12_in1k")}, CheckpointMismatchError),
        ({"weights": WeightSet.AVERAGED}, CheckpointMismatchError),
    ],
    ids=["no size", "small size", "batch", "classes", "variant", "weights"],
)
def test_what_cannot_be_exported_as_asked_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_checkpoint: Path, changes: dict[str, Any], error: type[RIFormerDeployError]
) -> None:
    with pytest.raises(error):
        export_checkpoint(_options(tiny_checkpoint, tmp_path / "new", **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_file_name_that_is_no_text_is_no_crash(
    tmp_path: Path, write_checkpoint: Callable[..., Path]
) -> None:
    checkpoint = write_checkpoint().rename(tmp_path / b"caf\xe9.pth".decode("utf-8", "surrogateescape"))
    try:
        export_checkpoint(_options(checkpoint, tmp_path / "out"))
    except RIFormerDeployError:
        assert not (tmp_path / "out").exists()
    else:
        assert Bundle.open(tmp_path / "out").manifest.source.file_name.startswith("caf")


@pytest.mark.untraced
def test_a_bundle_with_a_damaged_manifest_is_replaced_by_force(
    tiny_bundle_copy: Path, tiny_checkpoint: Path
) -> None:
    (tiny_bundle_copy / "bundle.json").write_text("{}")
    report = export_checkpoint(_options(tiny_checkpoint, tiny_bundle_copy, force=True))
    assert report.status is Status.PASSED
    bundle = Bundle.open(tiny_bundle_copy)
    assert all(bundle.path_of(record) for record in bundle.manifest.files)


@pytest.mark.untraced
def test_an_export_that_another_one_overtook_leaves_that_ones_bundle(
    tmp_path: Path, tiny_bundle: Path, other_checkpoint: Path
) -> None:
    output = tmp_path / "out"

    def overtake(said: str) -> None:
        if said == "fusing":
            shutil.copytree(tiny_bundle, output, dirs_exist_ok=True)

    with pytest.raises(BundleConflictError, match="bundle of another checkpoint"):
        export_checkpoint(_options(other_checkpoint, output), overtake)
    assert _content(output) == _content(tiny_bundle)


def test_without_onnx_runtime_an_export_fails_before_any_work(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(module: str) -> None:
        raise MissingDependencyError(f"{module} is not installed.")

    monkeypatch.setattr(export, "require", absent)
    said: list[str] = []
    with pytest.raises(MissingDependencyError, match="onnxruntime"):
        export_checkpoint(_options(tiny_checkpoint, tmp_path / "new"), said.append)
    assert said == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("batch", "runs"),
    [
        (3, 3),
        pytest.param(1, 8, marks=pytest.mark.slow),
        pytest.param(8, 1, marks=pytest.mark.slow),
        (9, 1),
    ],
)
def test_a_fixed_batch_is_proven_on_eight_images_or_more(
    tmp_path: Path, tiny_checkpoint: Path, batch: int, runs: int
) -> None:
    report = export_checkpoint(_options(tiny_checkpoint, tmp_path / "out", batch=batch))
    assert report.status is Status.PASSED
    assert report.parity.inputs.batches == (batch,) * runs
