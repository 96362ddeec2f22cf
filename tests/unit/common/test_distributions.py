from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from riformer_deploy.common.distributions import version_of


@pytest.mark.parametrize("name", ["numpy", "torch", "onnxruntime", "riformer-deploy"])
def test_the_version_is_the_one_that_importlib_parses(name: str) -> None:
    assert version_of(name) == importlib.metadata.version(name)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("METADATA", "Name: odd\nLicense: one\n        Version: 9\nversion: 1.5\n\nVersion: 8\n"),
        ("PKG-INFO", "Name: odd\nVersion: 1.5\n"),
    ],
)
def test_only_the_field_counts(file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("odd-1.5.dist-info" if file == "METADATA" else "odd.egg-info")
    folder.mkdir()
    (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert version_of("odd") == importlib.metadata.version("odd") == "1.5"


def test_what_is_not_installed_is_not_found() -> None:
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        version_of("no-such-distribution")
