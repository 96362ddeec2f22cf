"""What this machine can do, and the one command that mends each thing that is missing."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from enum import StrEnum

from riformer_deploy.bundle.rtx_support import rtx_support
from riformer_deploy.common import telemetry
from riformer_deploy.common.dependencies import (
    PACKAGES,
    distribution_version,
    installed_version,
    require,
    require_installed,
)
from riformer_deploy.common.errors import MissingDependencyError
from riformer_deploy.system.cuda_driver import Driver, Gpu, query_driver
from riformer_deploy.system.machine import describe_machine
from riformer_deploy.system.records import Machine
from riformer_deploy.system.user_files import UserFolder, user_folders

__all__ = ["DoctorReport", "Finding", "Health", "UserFolder", "examine"]


class Health(StrEnum):
    """Whether a thing can be used."""

    OK = "ok"
    MISSING = "missing"
    UNUSABLE = "unusable"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        needed_for: What it makes possible.
        health: Whether it can be used.
        version: Where one is known.
        detail: What was found.
        remedy: The command that mends it; empty where there is nothing to mend.
    """

    name: str
    needed_for: str
    health: Health
    version: str | None
    detail: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Everything that was looked at.

    Attributes:
        machine: This machine.
        findings: One per thing.
        folders: What is written outside a bundle.
        telemetry: Whether a runtime reports of its use, by its name.
    """

    machine: Machine
    findings: tuple[Finding, ...]
    folders: tuple[UserFolder, ...]
    telemetry: dict[str, str]


_REQUIRED = {
    "torch": "export, and what PyTorch runs",
    "onnx": "export, and looking into graphs",
    "onnxscript": "export",
    "onnxsim": "export",
}
_OPTIONAL = {
    "onnxruntime": ("ONNX Runtime", "comparing and timing ONNX files"),
    "openvino": ("OpenVINO", "running ONNX files fastest on a CPU"),
    "tensorrt": ("TensorRT", "building and running engines"),
    "tensorrt_rtx": ("TensorRT-RTX", "building engines without a GPU"),
    "cuda.bindings": ("cuda-python", "running engines"),
    "pynvml": ("nvidia-ml-py", "the GPU's clocks beside its latencies"),
    "jinja2": ("Jinja2", "the HTML report"),
    "matplotlib": ("matplotlib", "the plots of the HTML report"),
    "tritonclient": ("tritonclient", "checking a Triton server"),
    "ray": ("Ray", "scoring pictures with many processes, here or on a cluster"),
    "pyarrow": ("PyArrow", "writing scores as Parquet"),
    "pycuda": ("PyCUDA", "running engines beside other PyCUDA code"),
    "cv2": ("OpenCV", "resizing as models trained with OpenCV's resize expect"),
}
_QUICK = {"onnxruntime"}
"""Packages that are imported at every look: without ONNX Runtime's providers little is known. Importing all
would take ten times as long."""
_QUICK_ON_GPU = _QUICK | {"cuda.bindings", "pynvml"}
"""Those, and where there is a GPU what drives and watches it."""
_NOT_IMPORTED = "not imported; --thorough does"


def _see(name: str, *, imports: bool) -> None:
    """Import a module, or only find it; raises whatever a broken or missing one raises."""
    if imports:
        importlib.import_module(name)
    elif importlib.util.find_spec(name) is None:
        raise ImportError(f"there is no module {name}")


def _required(name: str, *, imports: bool) -> Finding:
    health, version, detail = Health.OK, None, "" if imports else _NOT_IMPORTED
    try:
        version = distribution_version(name)
        if version is None:
            health, detail = Health.MISSING, "not installed"
        else:
            _see(name, imports=imports)
    except Exception as err:  # noqa: BLE001  # a broken installation raises anything; that is the finding
        health, detail = Health.UNUSABLE, f"cannot be imported: {err}"
    return Finding(
        name=name,
        needed_for=_REQUIRED[name],
        health=health,
        version=version,
        detail=detail,
        remedy="" if health is Health.OK else "pip install --force-reinstall riformer-deploy",
    )


def _optional(module: str, *, imports: bool) -> Finding:
    name, needed_for = _OPTIONAL[module]
    version = installed_version(module)
    health, detail, remedy = Health.OK, "", ""
    try:
        if not imports:
            require_installed(module)
            detail = _NOT_IMPORTED
        imported = require(module) if imports else None
    except MissingDependencyError as err:
        health = Health.MISSING if version is None else Health.UNUSABLE
        detail = "not installed" if version is None else err.message
        remedy = PACKAGES[module].install_command + ("" if version is None else " --force-reinstall")
    else:
        if imported is not None and module == "onnxruntime":
            detail = "providers: " + ", ".join(imported.get_available_providers())
    return Finding(
        name=name, needed_for=needed_for, health=health, version=version, detail=detail, remedy=remedy
    )


def _driver(driver: Driver) -> Finding:
    return Finding(
        name="NVIDIA driver",
        needed_for="running engines",
        health=Health.OK
        if driver.gpus
        else Health.MISSING
        if driver.cuda_version is None
        else Health.UNUSABLE,
        version=f"CUDA {driver.cuda_version}" if driver.cuda_version else None,
        detail=driver.problem or f"{len(driver.gpus)} GPU(s)",
        remedy="" if driver.gpus else "install NVIDIA's driver and run on a machine with a GPU",
    )


def _rtx_note(gpu: Gpu) -> str:
    """That the installed TensorRT-RTX does not run on a GPU, where that is known."""
    version = installed_version("tensorrt_rtx")
    support = None if version is None else rtx_support(version)
    if support is None or support.supports(gpu.compute_capability):
        return ""
    return f"; TensorRT-RTX {version} does not support it"


def examine(*, thorough: bool = False) -> DoctorReport:
    """Look at this machine; a thing that is missing is a finding, never an error.

    Args:
        thorough: Import every package: that one is broken shows only then. Otherwise most are only looked
            up, since importing PyTorch and others takes seconds.
    """
    driver = query_driver()
    gpus = [
        Finding(
            name=gpu.name,
            needed_for="running engines",
            health=Health.OK,
            version=f"compute capability {gpu.compute_capability}",
            detail=f"{gpu.memory_bytes / 2**30:.0f} GiB{_rtx_note(gpu)}",
            remedy="",
        )
        for gpu in driver.gpus
    ]
    packages = [_required(name, imports=thorough) for name in _REQUIRED]
    quick = _QUICK_ON_GPU if driver.gpus else _QUICK
    packages += [_optional(name, imports=thorough or name in quick) for name in _OPTIONAL]
    return DoctorReport(
        machine=describe_machine(),
        findings=(*packages, _driver(driver), *gpus),
        folders=user_folders(),
        telemetry=telemetry.states(),
    )
