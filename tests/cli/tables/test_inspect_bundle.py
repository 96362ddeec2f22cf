from __future__ import annotations

import dataclasses

from riformer_deploy_cli.tables.inspect_bundle import classes_text, source_text

from riformer_deploy.bundle.manifest import Source
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.model.architecture import Form


def test_dots_stand_for_names_that_are_left_out_alone() -> None:
    assert classes_text(4, ("ant", "bee", "cat", "dog")) == "4: ant, bee, cat, dog"
    assert classes_text(6, tuple("abcdef")) == "6: a, b, c, d, e…"
    assert classes_text(7, None) == "7, without names"


def test_a_source_without_checksums_is_called_so() -> None:
    source = Source(
        file_name="a.pth",
        sha256="0" * 64,
        form=Form.TRAINING,
        weights=WeightSet.ONLY,
        weights_sha256="1" * 64,
        checksums=True,
    )
    assert source_text(source) == "a.pth (training form, only weights)"
    old = dataclasses.replace(source, checksums=False)
    assert source_text(old) == "a.pth (training form, only weights), in a format without checksums"
