from __future__ import annotations

import importlib
from pathlib import Path

import pytest


@pytest.mark.untraced
def test_the_generated_pages_are_those_of_the_code(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "docs"))
    made = importlib.import_module("generate").pages()
    folder = repository / "docs" / "reference"
    stored = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert stored == made, "run `make docs`"
