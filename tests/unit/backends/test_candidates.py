from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.backends.pytorch_candidates import reference
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision, RuntimeKind
from riformer_deploy.common.errors import BundleError, BundleIntegrityError
from riformer_deploy.common.serialization import load_json
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.results import CandidateParity, ParityResult, Status
from riformer_deploy.model.architecture import Form
from riformer_deploy.serving.runner import only_runner


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "form"), [("training.pth", Form.TRAINING), ("deploy.pth", Form.DEPLOY)])
def test_a_model_is_loaded_in_its_files_form_and_the_type_asked_for(
    tiny_bundle: Path, name: str, form: Form, dtype: torch.dtype
) -> None:
    model = model_of(tiny_bundle / name, dtype)
    assert model.form is form
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert not model.training


def test_the_reference_is_the_training_form_in_float64(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    found = reference(bundle)
    assert found.name == "PyTorch float64, training form"
    assert found.artifact_sha256 == bundle.manifest.weights[0].file.sha256
    assert found.open().run(synthetic_images(1, (64, 48), seed=0))["logits"].dtype == np.float64


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (
            [Group.TORCH],
            [f"PyTorch float32, {form} form" for form in ("training", "deploy", "folded")],
        ),
        ([Group.COMPILED], ["PyTorch float32, folded form, torch.compile"]),
        ([Group.ONNX], ["ONNX Runtime fp32"]),
        ([], []),
    ],
    ids=["torch", "compiled", "onnx", "none"],
)
def test_a_group_gives_its_candidates(tiny_bundle: Path, groups: list[Group], names: list[str]) -> None:
    found = select_candidates(Bundle.open(tiny_bundle), groups).candidates
    assert [item.name for item in found] == names
    assert {item.precision for item in found} <= {Precision.FP32}


def test_nothing_is_run_of_a_manifest_that_states_another_architecture(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    model = bundle.manifest.model
    other = dataclasses.replace(model.architecture, layers=(1000, 1000, 1000, 1000))
    manifest = dataclasses.replace(bundle.manifest, model=dataclasses.replace(model, architecture=other))
    for group in (Group.TORCH, Group.ONNX, Group.OPENVINO):
        with pytest.raises(BundleIntegrityError, match=r"training\.pth holds .* bytes"):
            select_candidates(Bundle(bundle.directory, manifest), [group])


def test_every_candidate_runs_the_file_that_it_names(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    images = synthetic_images(2, (64, 48), seed=0)
    expected = reference(bundle).open().run(images)["logits"]
    hashes = {
        item.name: item.artifact_sha256
        for item in select_candidates(bundle, [Group.TORCH, Group.ONNX]).candidates
    }
    files = {record.path: record.sha256 for record in bundle.manifest.files}
    assert hashes == {
        "PyTorch float32, training form": files["training.pth"],
        "PyTorch float32, deploy form": files["deploy.pth"],
        "PyTorch float32, folded form": files["training.pth"],
        "ONNX Runtime fp32": files["model.fp32.onnx"],
    }
    for item in select_candidates(bundle, [Group.TORCH, Group.ONNX]).candidates:
        runtime = item.open()
        logits = runtime.run(images)["logits"]
        runtime.close()
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5, err_msg=item.name)


@pytest.mark.parametrize("name", ["training.pth", "deploy.pth", "model.fp32.onnx"])
def test_a_file_that_was_changed_since_is_never_run(tiny_bundle_copy: Path, name: str) -> None:
    path = tiny_bundle_copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    bundle = Bundle.open(tiny_bundle_copy)
    (changed,) = [record for record in bundle.manifest.files if record.path == name]
    found = select_candidates(bundle, [Group.TORCH, Group.ONNX]).candidates
    affected = [item for item in found if item.artifact_sha256 == changed.sha256]
    assert affected
    for item in affected:
        with pytest.raises(BundleIntegrityError, match=name):
            item.open()


def test_engines_are_refused_until_there_are_some(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no TensorRT engine"):
        select_candidates(Bundle.open(tiny_bundle), [Group.ONNX, Group.ENGINE], gpu=GpuOptions(required=True))


def test_a_bundle_without_engines_is_no_error_where_none_is_asked_for(tiny_bundle: Path) -> None:
    selected = select_candidates(Bundle.open(tiny_bundle), [Group.ENGINE])
    assert (selected.candidates, selected.skipped) == ((), ())


@pytest.mark.usefixtures("noisy_openvino")
@pytest.mark.untraced
def test_a_model_that_failed_parity_does_no_work(tiny_bundle_copy: Path) -> None:
    assert only_runner(Bundle.open(tiny_bundle_copy), Group.OPENVINO).name == "OpenVINO fp32"
    verify_bundle(tiny_bundle_copy)
    bundle = Bundle.open(tiny_bundle_copy)
    with pytest.raises(BundleError, match="failed parity") as caught:
        only_runner(bundle, Group.OPENVINO)
    (detail,) = caught.value.details
    assert detail.startswith("OpenVINO fp32 (model.fp32.onnx), logits: |difference| up to ")
    assert "verify parity" in caught.value.remedy
    for group in (Group.ONNX, Group.TORCH):
        assert only_runner(bundle, group).precision is Precision.FP32


def test_the_next_model_works_where_the_first_failed_and_a_warning_says_so(
    tmp_path: Path, precise_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(precise_bundle, tmp_path / "copy"))
    parity = load_json(ParityResult, (copy / "parity.json").read_text(encoding="utf-8"))
    right = {c.precision: c for c in parity.candidates if c.runtime is RuntimeKind.ONNX_RUNTIME}

    def changed(item: CandidateParity) -> CandidateParity:
        if item.precision is not Precision.FP32:
            good = right.get(item.precision, item)
            return dataclasses.replace(item, outputs=good.outputs, stages=good.stages, status=good.status)
        (output,) = item.outputs
        far = dataclasses.replace(output.deviation, elementwise_used=5.0)
        failed = dataclasses.replace(output, deviation=far, tolerance_used=5.0, status=Status.FAILED)
        return dataclasses.replace(item, outputs=(failed,), status=Status.FAILED)

    candidates = tuple(
        changed(item) if item.runtime is RuntimeKind.OPENVINO else item for item in parity.candidates
    )
    store_result(Bundle.open(copy), "parity", dataclasses.replace(parity, candidates=candidates))
    assert only_runner(Bundle.open(copy), Group.OPENVINO).name == "OpenVINO fp16"
    assert "left out, since it failed parity: OpenVINO fp32 (model.fp32.onnx)" in caplog.text


def test_the_module_behind_a_bfloat16_graph_takes_part_only_where_outputs_are_asked_for(
    tiny_bundle: Path,
) -> None:
    bundle = Bundle.open(tiny_bundle)
    (graph,) = bundle.manifest.onnx
    half = dataclasses.replace(graph, lowering=LoweringConfig(precision=Precision.BF16))
    changed = Bundle(tiny_bundle, dataclasses.replace(bundle.manifest, onnx=(half,)))
    (module,) = select_candidates(changed, [Group.ONNX]).candidates
    assert module.name == "PyTorch bf16, lowered"
    timed = select_candidates(changed, [Group.ONNX], modules=False)
    assert (timed.candidates, [item.name for item in timed.skipped]) == ((), ["ONNX Runtime bf16"])
    assert "took part" not in timed.skipped[0].reason
