"""Coverage by SlipCover, whose instrumented lines cost nothing once they were seen; a pytest plugin.

``pytest -p tests.measuring`` writes what each process covered into :data:`FOLDER`; ``slipcover --merge`` adds
it up. SlipCover's own plugin loads test modules in a way that does not go with pytest's mode ``importlib``.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
import slipcover

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".coverage-parts"
SOURCES = ["riformer_deploy", "cli"]

_settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["slipcover"]
_measured = slipcover.Slipcover(branch=True, source=SOURCES, exclude_lines=_settings["exclude-lines"])
slipcover.ImportManager(
    _measured, slipcover.FileMatcher(sources=[ROOT / source for source in SOURCES])
).__enter__()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write this process's part; xdist's controller covers nothing."""
    if session.config.getoption("numprocesses", None):
        return
    FOLDER.mkdir(exist_ok=True)
    part = FOLDER / f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.json"
    part.write_text(json.dumps(_measured.get_coverage()), encoding="utf-8")
