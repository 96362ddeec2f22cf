from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from riformer_deploy.api.bench import bench_bundle
from riformer_deploy.api.parity import measure_parity, verify_bundle
from riformer_deploy.api.parity_reference import PARITY_BATCHES
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleChangedError, BundleError, BundleIntegrityError
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.results import CandidateParity, LatencyResult, ParityResult, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance

QUICK = BenchOptions(batches=(1, 2), rounds=5, repeats=1, warmup=1, threads=1)
LOOSE = {Precision.FP32: Tolerance(rtol=10, atol=10, stage_relative_l2=10, stated="user")}


def _damage(directory: Path, tensor: str, change: Callable[[np.ndarray], None]) -> None:
    """Change one tensor of a bundle's ONNX file and record the file as if it were right."""
    bundle = Bundle.open(directory)
    (artifact,) = bundle.manifest.onnx
    path = directory / artifact.file.path
    graph = onnx.load(path)
    (stored,) = [item for item in graph.graph.initializer if item.name.endswith(tensor)]
    values = onnx.numpy_helper.to_array(stored).copy()
    change(values)
    stored.CopyFrom(onnx.numpy_helper.from_array(values, stored.name))
    onnx.save(graph, path)
    record = dataclasses.replace(artifact.file, sha256=sha256_of(path), size_bytes=path.stat().st_size)
    manifest = dataclasses.replace(bundle.manifest, onnx=(dataclasses.replace(artifact, file=record),))
    (directory / MANIFEST).write_text(dump_json(manifest), encoding="utf-8")


def _off_by_a_hundredth(values: np.ndarray) -> None:
    values.reshape(-1)[0] += 1e-2


def _graph_verdict(directory: Path, tolerances: dict[Precision, Tolerance] = TOLERANCES) -> CandidateParity:
    """The ONNX file's; everything else must have passed."""
    *others, graph, again = measure_parity(Bundle.open(directory), tolerances).candidates
    assert {item.status for item in others} == {Status.PASSED}
    assert (graph.name, again.name) == ("ONNX Runtime fp32", "OpenVINO fp32")
    assert (graph.status, graph.first_bad_block) == (again.status, again.first_bad_block)
    return graph


@pytest.mark.untraced
@pytest.mark.sampled(1)
@pytest.mark.parametrize("block", ["4.3", "0.0", "0.1", "6.1"])
def test_one_wrong_weight_in_the_trained_models_graph_fails_and_its_block_is_named(
    tmp_path: Path, digits_bundle: Path, block: str
) -> None:
    copy = Path(shutil.copytree(digits_bundle, tmp_path / "copy"))
    _damage(copy, f"backbone.network.{block}.mlp.fc1.weight", _off_by_a_hundredth)
    found = _graph_verdict(copy)
    assert found.status is Status.FAILED
    assert found.first_bad_block == f"backbone.network.{block}"
    out = [item.stage for item in found.stages if item.status is Status.FAILED]
    assert out[0] == int(block[0]) // 2 + 1


@pytest.mark.untraced
@pytest.mark.sampled(2)
@pytest.mark.parametrize("block", ["0.0", "2.0", "4.0", "4.1", "6.0"])
def test_one_wrong_weight_in_any_block_of_the_tiny_graph_fails_and_its_block_is_named(
    tiny_bundle_copy: Path, block: str
) -> None:
    _damage(tiny_bundle_copy, f"backbone.network.{block}.mlp.fc2.bias", _off_by_a_hundredth)
    found = _graph_verdict(tiny_bundle_copy)
    assert found.status is Status.FAILED
    assert found.first_bad_block == f"backbone.network.{block}"


@pytest.mark.untraced
def test_a_wrong_classifier_fails_and_no_block_is_blamed(tiny_bundle_copy: Path) -> None:
    _damage(tiny_bundle_copy, "head.fc.bias", _off_by_a_hundredth)
    found = _graph_verdict(tiny_bundle_copy)
    assert found.status is Status.FAILED
    assert found.first_bad_block is None


@pytest.mark.untraced
def test_a_graph_that_gives_nan_fails_under_the_loosest_tolerance(tiny_bundle_copy: Path) -> None:
    _damage(tiny_bundle_copy, "backbone.network.4.1.mlp.fc2.bias", lambda values: values.fill(np.nan))
    found = _graph_verdict(tiny_bundle_copy, LOOSE)
    assert found.status is Status.FAILED
    assert found.first_bad_block == "backbone.network.4.1"
    assert found.outputs[0].deviation.finite is False


@pytest.mark.untraced
def test_a_loosened_tolerance_passes_a_damaged_graph_and_is_marked_as_the_users(
    tiny_bundle_copy: Path,
) -> None:
    _damage(tiny_bundle_copy, "head.fc.bias", _off_by_a_hundredth)
    found = _graph_verdict(tiny_bundle_copy, LOOSE)
    assert (found.status, found.tolerance.stated) == (Status.PASSED, "user")


@pytest.mark.untraced
def test_every_artifact_of_a_sound_bundle_is_proven_on_every_batch_size(tiny_bundle: Path) -> None:
    said: list[str] = []
    result = measure_parity(Bundle.open(tiny_bundle), TOLERANCES, said.append)
    assert result.status is Status.PASSED
    names = [item.name for item in result.candidates]
    steps = [f"{name}, {number} of {len(names)}" for number, name in enumerate(names, 1)]
    assert said == [result.reference, *steps]
    assert [item.name for item in result.candidates] == [
        "PyTorch float32, training form",
        "PyTorch float32, deploy form",
        "PyTorch float32, folded form",
        "ONNX Runtime fp32",
        "OpenVINO fp32",
    ]
    assert result.inputs.batches == PARITY_BATCHES
    assert result.inputs.image_size_px == (64, 48)
    for item in result.candidates:
        assert item.outputs[0].decisions is not None
        assert item.outputs[0].decisions.images == sum(PARITY_BATCHES)


def test_verifying_stores_the_result_in_the_bundle_with_its_parent(tiny_bundle_copy: Path) -> None:
    before = Bundle.open(tiny_bundle_copy).manifest
    result = verify_bundle(tiny_bundle_copy)
    bundle = Bundle.open(tiny_bundle_copy)
    record = bundle.manifest.results["parity"]
    assert record.parent_sha256 == bundle.manifest.weights[0].file.sha256
    stored = load_json(ParityResult, bundle.path_of(record).read_text(encoding="utf-8"))
    assert stored == result
    assert dataclasses.replace(bundle.manifest, results={}) == dataclasses.replace(before, results={})


@pytest.mark.untraced
def test_a_failed_verification_is_stored_as_failed(tiny_bundle_copy: Path) -> None:
    _damage(tiny_bundle_copy, "head.fc.bias", _off_by_a_hundredth)
    assert verify_bundle(tiny_bundle_copy).status is Status.FAILED
    stored = load_json(ParityResult, (tiny_bundle_copy / "parity.json").read_text(encoding="utf-8"))
    assert stored.status is Status.FAILED
    Bundle.open(tiny_bundle_copy).path_of(Bundle.open(tiny_bundle_copy).manifest.results["parity"])


def test_benching_stores_the_result_beside_the_parity_report(tiny_bundle_copy: Path) -> None:
    parity = Bundle.open(tiny_bundle_copy).manifest.results["parity"]
    result = bench_bundle(tiny_bundle_copy, (Group.TORCH, Group.ONNX), QUICK)
    bundle = Bundle.open(tiny_bundle_copy)
    assert bundle.manifest.results.keys() == {"parity", "latency"}
    assert bundle.manifest.results["parity"] == parity
    path = bundle.path_of(bundle.manifest.results["latency"])
    assert load_json(LatencyResult, path.read_text(encoding="utf-8")) == result
    assert len(result.samples) == 2 * 4
    assert result.inputs.batches == (1, 2)
    assert {item.artifact_sha256 for item in result.samples} <= {
        file.sha256 for file in bundle.manifest.files
    }


@pytest.mark.parametrize("name", ["training.pth", "model.fp32.onnx"])
def test_a_bundle_with_a_changed_file_is_not_verified(tiny_bundle_copy: Path, name: str) -> None:
    before = (tiny_bundle_copy / MANIFEST).read_bytes()
    with (tiny_bundle_copy / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleIntegrityError, match=name):
        verify_bundle(tiny_bundle_copy)
    assert (tiny_bundle_copy / MANIFEST).read_bytes() == before


def test_a_result_that_cannot_be_stored_is_still_given(
    tiny_bundle_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lose_the_bundle(step: str) -> None:
        if step == "batch 2, round 5 of 5":
            shutil.rmtree(tiny_bundle_copy)

    with caplog.at_level(logging.WARNING):
        result = bench_bundle(tiny_bundle_copy, (Group.ONNX,), QUICK, lose_the_bundle)
    assert [item.batch for item in result.samples] == [1, 2]
    assert "the latency result could not be stored in the bundle" in caplog.text
    assert not tiny_bundle_copy.exists()


def test_a_result_is_never_stored_in_a_bundle_that_it_was_not_measured_on(
    tiny_bundle_copy: Path, digits_bundle: Path
) -> None:
    def replace_the_bundle(step: str) -> None:
        if step == "batch 2, round 5 of 5":
            shutil.rmtree(tiny_bundle_copy)
            shutil.copytree(digits_bundle, tiny_bundle_copy)

    with pytest.raises(BundleChangedError, match="exported or built anew") as caught:
        bench_bundle(tiny_bundle_copy, (Group.ONNX,), QUICK, replace_the_bundle)
    assert caught.value.exit_code == 33
    assert "latency" not in Bundle.open(tiny_bundle_copy).manifest.results


def test_storing_into_what_is_no_bundle_is_an_error_that_leaves_nothing(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    bundle = Bundle.open(tiny_bundle)
    result = load_json(ParityResult, (tiny_bundle / "parity.json").read_text(encoding="utf-8"))
    with pytest.raises(BundleError):
        store_result(Bundle(tmp_path / "gone", bundle.manifest), "parity", result)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_benching_gives_back_the_threads_that_it_found(tiny_bundle_copy: Path, *, fails: bool) -> None:
    seen: list[int] = []

    def look(_step: str) -> None:
        seen.append(torch.get_num_threads())
        if fails and seen[-1] == 1:
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
        bench_bundle(tiny_bundle_copy, (Group.TORCH,), QUICK, look)
    assert 1 in seen  # as the options say, meanwhile
    assert torch.get_num_threads() == 2


def test_parity_report_under_limits_of_the_users_own_is_kept_beside_that_under_the_default_ones(
    tiny_bundle_copy: Path,
) -> None:
    before = Bundle.open(tiny_bundle_copy).manifest.results["parity"]
    result = verify_bundle(str(tiny_bundle_copy), LOOSE)
    bundle = Bundle.open(tiny_bundle_copy)
    assert bundle.manifest.results.keys() == {"parity", "parity-user"}
    assert bundle.manifest.results["parity"] == before
    path = bundle.path_of(bundle.manifest.results["parity-user"])
    assert path.name == "parity-user.json"
    assert load_json(ParityResult, path.read_text(encoding="utf-8")) == result
