from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleIntegrityError
from riformer_deploy.serving.bulk_work import ExpectedModel


def test_another_file_another_model_and_another_version_are_told_at_once(digits_bundle: Path) -> None:
    model = Bundle.open(digits_bundle).manifest.model
    expected = ExpectedModel(bundle="/shared/digits", model=model, artifacts=("a",))
    expected.check(model, ("a",))
    old = dataclasses.replace(expected, version="0.0")
    with pytest.raises(BundleIntegrityError, match="/shared/digits is another one on ") as caught:
        old.check(dataclasses.replace(model, class_names=None), ("b",))
    assert [detail.split()[0] for detail in caught.value.details] == [
        "riformer-deploy",
        "it",
        "architecture,",
    ]
    assert "expected a (sha256)" in caught.value.details[1]
