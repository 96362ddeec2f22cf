"""Optional packages, imported lazily and by name in this one place."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from packaging.version import InvalidVersion, Version

from riformer_deploy.common.errors import MissingDependencyError
from riformer_deploy.common.telemetry import without_openvino_telemetry


@dataclass(frozen=True, kw_only=True)
class OptionalPackage:
    """A package that some commands need.

    Attributes:
        module: Import name.
        distributions: Names it is installed under, the preferred one first.
        minimum: Oldest version that works.
        extras: What of it is installed beyond its core, as ``[http,grpc]``.
    """

    module: str
    distributions: tuple[str, ...]
    minimum: str
    extras: str = ""

    @property
    def install_command(self) -> str:
        """The one command that installs it."""
        return f'pip install "{self.distributions[0]}{self.extras}>={self.minimum}"'


PACKAGES = {
    package.module: package
    for package in (
        OptionalPackage(module="torch", distributions=("torch",), minimum="2.9"),
        OptionalPackage(module="onnx", distributions=("onnx",), minimum="1.18"),
        OptionalPackage(
            module="onnxruntime",
            distributions=("onnxruntime", "onnxruntime-gpu"),
            minimum="1.20",
        ),
        OptionalPackage(
            module="tensorrt",
            distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
            minimum="10.0",
        ),
        OptionalPackage(
            module="tensorrt_rtx",
            distributions=("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
            minimum="1.0",
        ),
        OptionalPackage(module="cuda.bindings", distributions=("cuda-bindings",), minimum="12.6"),
        OptionalPackage(module="openvino", distributions=("openvino",), minimum="2024.0"),
        OptionalPackage(module="pynvml", distributions=("nvidia-ml-py",), minimum="12.535"),
        OptionalPackage(
            module="cv2", distributions=("opencv-python-headless", "opencv-python"), minimum="4.8"
        ),
        OptionalPackage(module="jinja2", distributions=("jinja2",), minimum="3.1"),
        OptionalPackage(module="matplotlib", distributions=("matplotlib",), minimum="3.8"),
        OptionalPackage(
            module="tritonclient", distributions=("tritonclient",), minimum="2.40", extras="[http,grpc]"
        ),
        OptionalPackage(module="ray", distributions=("ray",), minimum="2.60", extras="[data]"),
        OptionalPackage(module="pyarrow", distributions=("pyarrow",), minimum="20.0"),
        OptionalPackage(module="pycuda", distributions=("pycuda",), minimum="2024.1"),
    )
}
"""Every optional package by import name."""


_VERSION = re.compile(r"^Version: *(\S+)$", re.MULTILINE)


def distribution_version(name: str) -> str | None:
    """Version of an installed distribution; None where there is none of this name, or it states none.

    ``importlib.metadata.version`` parses the description, too, which takes several times as long.

    Args:
        name: As package indexes have it, such as ``onnxruntime-gpu``.
    """
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    header = (found.read_text("METADATA") or "").partition("\n\n")[0]
    line = _VERSION.search(header)
    return line[1] if line else found.version


def _installed(module: str) -> tuple[str, str] | None:
    """Name and version of the distribution that ``import`` would take the module from."""
    found: dict[str, str] = {}
    for name in PACKAGES[module].distributions:
        if (version := distribution_version(name)) is not None:
            found[name] = version
    if len(found) > 1:  # say onnxruntime in one folder and onnxruntime-gpu in one that is searched earlier
        found = {name: found[name] for name in found if _provides(name, module)} or found
    return next(iter(found.items()), None)


def _provides(distribution: str, module: str) -> bool:
    """Whether a distribution lies in the folder that a module is imported from."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return False
    try:
        root = Path(str(importlib.metadata.distribution(distribution).locate_file("")))
    except importlib.metadata.PackageNotFoundError:
        return False
    return Path(spec.origin).resolve().is_relative_to(root.resolve())


def installed_version(module: str) -> str | None:
    """Version of an optional package, or None when it is not installed; nothing is imported.

    Args:
        module: A key of :data:`PACKAGES`.
    """
    found = _installed(module)
    return None if found is None else found[1]


def require_installed(module: str) -> str:
    """See that an optional package is installed and new enough; nothing is imported.

    Args:
        module: A key of :data:`PACKAGES`.

    Returns:
        Name and version of the distribution, for messages.

    Raises:
        MissingDependencyError: It is absent or too old.
    """
    package = PACKAGES[module]
    found = _installed(module)
    if found is None:
        raise MissingDependencyError(
            f"{package.distributions[0]} is not installed.", remedy=f"Run: {package.install_command}"
        )
    name, version = found
    try:
        old = Version(version) < Version(package.minimum)
    except InvalidVersion:
        old = True
    if old:
        raise MissingDependencyError(
            f"{name} {version} is too old: {package.minimum} or newer is needed.",
            remedy=f"Run: {package.install_command} --upgrade",
        )
    return f"{name} {version}"


def require(module: str, submodule: str = "") -> ModuleType:
    """Import an optional package, or a module of it.

    Args:
        module: A key of :data:`PACKAGES`.
        submodule: Its name below ``module``; empty for the package itself.

    Raises:
        MissingDependencyError: It is absent, too old, or fails to import.
    """
    named = require_installed(module)
    try:
        with without_openvino_telemetry():
            return importlib.import_module(f"{module}.{submodule}" if submodule else module)
    except Exception as err:  # broken binaries raise anything
        raise MissingDependencyError(
            f"{named} is installed but cannot be imported: {err}",
            remedy="Run `riformer-deploy doctor` to see what this machine offers.",
        ) from err
