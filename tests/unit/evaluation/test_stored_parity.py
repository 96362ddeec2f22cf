from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.common.errors import BundleError, BundleIntegrityError
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.evaluation.stored_parity import stored_parity


def test_a_parity_that_is_damaged_or_no_record_is_refused(tiny_bundle: Path, tiny_bundle_copy: Path) -> None:
    (tiny_bundle_copy / "parity.json").write_text("{}")
    with pytest.raises(BundleIntegrityError, match="parity"):
        stored_parity(Bundle.open(tiny_bundle_copy))
    manifest = Bundle.open(tiny_bundle_copy).manifest
    record = record_file(tiny_bundle_copy / "parity.json", manifest.weights[0].file.sha256)
    changed = dataclasses.replace(manifest, results={"parity": record})
    (tiny_bundle_copy / MANIFEST).write_text(dump_json(changed), encoding="utf-8")
    with pytest.raises(BundleError, match="is no valid result") as caught:
        stored_parity(Bundle.open(tiny_bundle_copy))
    assert "verify parity" in caught.value.remedy
    assert stored_parity(Bundle.open(tiny_bundle), "parity-user") is None


def test_a_parity_of_an_older_schema_is_refused_by_its_number_and_is_measured_anew(
    tiny_bundle_copy: Path,
) -> None:
    bundle = Bundle.open(tiny_bundle_copy)
    path = tiny_bundle_copy / "parity.json"
    older = json.loads(path.read_text()) | {"schema": 1, "a field of version 1": None}
    path.write_text(json.dumps(older))
    record = record_file(path, bundle.manifest.reference.file.sha256)
    changed = dataclasses.replace(bundle.manifest, results={"parity": record})
    (tiny_bundle_copy / MANIFEST).write_text(dump_json(changed), encoding="utf-8")
    with pytest.raises(BundleError, match=r"is of schema 1; this toolkit reads schema 2\.") as caught:
        stored_parity(Bundle.open(tiny_bundle_copy))
    assert "verify parity" in caught.value.remedy
