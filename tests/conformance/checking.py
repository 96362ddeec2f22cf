"""Our code checked by mypy against the stubs of one flavor of TensorRT."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from riformer_deploy.trt.bindings import TensorRT
from tests.conformance.stubs import MODULE, write_stub
from tests.fakes.gpu import FakeGpu
from tests.fakes.tensorrt import bindings

CAPABILITIES = tuple(name for name in vars(TensorRT) if name.startswith("has_"))
"""The properties that say what only some flavors have."""
_CONFIG = """
[mypy]
strict = true
follow_imports = skip
no_site_packages = true
ignore_missing_imports = true
disallow_any_explicit = true
disallow_subclassing_any = false
warn_unused_ignores = false
warn_return_any = false
"""


def sources_of(folder: Path) -> dict[str, str]:
    """Text of each module of a folder, by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}


def problems_of(flavor: str, sources: Mapping[str, str], folder: Path) -> list[str]:
    """What mypy refuses in our code where a flavor is installed: lacking members, wrong arguments, ``Any``.

    What stands behind a capability that the flavor lacks is not checked.

    Args:
        flavor: One of :data:`~tests.fakes.api.FLAVORS`.
        sources: Text of each module of ``riformer_deploy/trt``, by file name.
        folder: Where to work; mypy's cache stays there for the next call.
    """
    return _errors(flavor, sources, folder, marked=False)


def uses_in(flavor: str, sources: Mapping[str, str], folder: Path) -> set[tuple[str, str]]:
    """Class and name of every function and attribute of TensorRT's objects that mypy sees our code use.

    Args:
        flavor: As for :func:`problems_of`.
        sources: Likewise.
        folder: Likewise.
    """
    text = "\n".join(_errors(flavor, sources, folder, marked=True))
    return set(re.findall(r'Invalid self argument "(\w+)" to attribute function "(\w+)"', text))


def _errors(flavor: str, sources: Mapping[str, str], folder: Path, *, marked: bool) -> list[str]:
    package = folder / "riformer_deploy" / "trt"
    package.mkdir(parents=True, exist_ok=True)
    (package.parent / "__init__.py").touch()
    for name, text in sources.items():
        (package / name).write_text(text, encoding="utf-8")
    write_stub(flavor, folder, marked=marked)
    (folder / "mypy.ini").write_text(_CONFIG, encoding="utf-8")
    trt = bindings(flavor, FakeGpu())
    known = [f"--always-{str(getattr(trt, name)).lower()}={name}" for name in CAPABILITIES]
    files = [f"{MODULE}.pyi", *(f"riformer_deploy/trt/{name}" for name in sources)]
    command = [sys.executable, "-m", "mypy", "--config-file=mypy.ini", *known, *files]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return [line for line in ran.stdout.splitlines() if ": error: " in line]
