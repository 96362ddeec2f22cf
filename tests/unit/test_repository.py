from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def _pinned(path: Path) -> set[str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {canonicalize_name(Requirement(line).name) for line in lines if line}


def test_constraints_that_hold_together_name_no_package_twice(repository: Path) -> None:
    """``make peer`` installs with both files: a version in each would soon be two versions."""
    both = [_pinned(repository / name) for name in ("constraints.txt", "tests/peer/constraints.txt")]
    assert all(both)
    assert not set.intersection(*both)


def test_no_module_is_longer_than_300_lines(repository: Path) -> None:
    modules = [path for folder in ("riformer_deploy", "cli") for path in (repository / folder).rglob("*.py")]
    assert len(modules) > 200
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert {path: length for path, length in lengths.items() if length > 300} == {}
