from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.api import parity_reference as parity_reference_module
from riformer_deploy.api.parity import measure_parity
from riformer_deploy.api.parity_reference import PARITY_BATCHES, parity_reference
from riformer_deploy.backends import pytorch_candidates
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.errors import BundleIntegrityError, MissingDependencyError
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.evaluation.reference_outputs import ReferenceOutputs, StoredReference
from riformer_deploy.evaluation.results import Status
from riformer_deploy.evaluation.tolerances import TOLERANCES


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without PyTorch, as far as candidates are chosen."""
    monkeypatch.setattr(
        pytorch_candidates,
        "installed_version",
        lambda name: None if name == "torch" else installed_version(name),
    )


def _keep(directory: Path, stored: StoredReference) -> Bundle:
    """Put other outputs into a bundle, recorded as if they were right."""
    manifest = Bundle.open(directory).manifest
    assert manifest.reference_outputs is not None
    path = directory / manifest.reference_outputs.path
    stored.save(path)
    record = dataclasses.replace(
        manifest.reference_outputs, sha256=sha256_of(path), size_bytes=path.stat().st_size
    )
    changed = dataclasses.replace(manifest, reference_outputs=record)
    (directory / MANIFEST).write_text(dump_json(changed), encoding="utf-8")
    return Bundle.open(directory)


def _kept(directory: Path) -> StoredReference:
    return StoredReference.load(directory / "reference.npz")


def test_an_export_keeps_float64_outputs_of_the_pictures_of_its_parity_report(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    record = bundle.manifest.reference_outputs
    assert record is not None
    assert record.parent_sha256 == bundle.manifest.weights[0].file.sha256
    stored = StoredReference.load(bundle.path_of(record))
    assert stored.pixels is not None
    assert stored.pixels.shape == (sum(PARITY_BATCHES), 64, 48, 3)
    assert {values.dtype for values in stored.outputs.outputs.values()} == {np.dtype(np.float64)}
    assert len(stored.outputs.stages) == 4


def test_with_pytorch_the_reference_is_run_again_and_agrees(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = parity_reference(Bundle.open(tiny_bundle))
    assert not found.stored
    assert found.stored_relative_l2 is not None
    assert found.stored_relative_l2 < 1e-12
    assert caplog.text == ""


def test_kept_outputs_that_are_not_the_reference_s_are_warned_of_and_not_compared_by(
    tiny_bundle_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = _kept(tiny_bundle_copy)
    off = {name: values * (1 + 1e-6) for name, values in kept.outputs.outputs.items()}
    wrong = ReferenceOutputs(outputs=off, stages=kept.outputs.stages)
    bundle = _keep(tiny_bundle_copy, dataclasses.replace(kept, outputs=wrong))
    with caplog.at_level(logging.WARNING):
        result = measure_parity(bundle, TOLERANCES)
    assert result.stored_reference_relative_l2 == pytest.approx(1e-6, rel=1e-3)
    assert "that the bundle keeps are not those computed here: relative L2 1.0e-06" in caplog.text
    assert result.status is Status.PASSED


@pytest.mark.usefixtures("no_torch")
def test_without_pytorch_outputs_and_stages_are_compared_and_no_block_is_named(
    tiny_bundle_copy: Path,
) -> None:
    kept = _kept(tiny_bundle_copy)
    last = list(kept.outputs.stages)[-1]
    stages = {**kept.outputs.stages, last: kept.outputs.stages[last] + 1.0}
    wrong = ReferenceOutputs(outputs=kept.outputs.outputs, stages=stages)
    result = measure_parity(_keep(tiny_bundle_copy, dataclasses.replace(kept, outputs=wrong)), TOLERANCES)
    assert result.reference_stored
    assert result.status is Status.FAILED
    assert {item.first_bad_block for item in result.candidates} == {None}
    for item in result.candidates:
        assert [stage.status for stage in item.stages] == [*[Status.PASSED] * 3, Status.FAILED]


@pytest.mark.usefixtures("no_torch")
def test_without_pytorch_and_without_stages_only_outputs_are_compared_which_is_said(
    tiny_bundle_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = _kept(tiny_bundle_copy)
    bare = ReferenceOutputs(outputs=kept.outputs.outputs, stages={})
    with caplog.at_level(logging.WARNING):
        result = measure_parity(_keep(tiny_bundle_copy, dataclasses.replace(kept, outputs=bare)), TOLERANCES)
    assert (result.status, {item.stages for item in result.candidates}) == (Status.PASSED, {()})
    assert "keeps no stages of the reference" in caplog.text


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("other", ["none", "of other images"])
def test_without_pytorch_a_bundle_that_keeps_nothing_on_these_images_cannot_be_compared(
    tiny_bundle_copy: Path, other: str
) -> None:
    kept = _kept(tiny_bundle_copy)
    bundle = _keep(tiny_bundle_copy, dataclasses.replace(kept, images_sha256="b" * 64))
    if other == "none":
        bundle = Bundle(bundle.directory, dataclasses.replace(bundle.manifest, reference_outputs=None))
    with pytest.raises(MissingDependencyError, match="keeps no outputs of the reference") as caught:
        parity_reference(bundle)
    assert 'pip install "torch' in caught.value.remedy


def test_pictures_that_are_kept_go_before_new_ones(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(parity_reference_module, "synthetic_pixels")  # noise may come out otherwise elsewhere
    assert parity_reference(Bundle.open(tiny_bundle)).stored_relative_l2 is not None


def test_a_changed_file_of_kept_outputs_is_refused(tiny_bundle_copy: Path) -> None:
    with (tiny_bundle_copy / "reference.npz").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleIntegrityError, match=r"reference\.npz"):
        measure_parity(Bundle.open(tiny_bundle_copy), TOLERANCES)
