from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest

from riformer_deploy.api import doctor
from riformer_deploy.api.doctor import DoctorReport, Finding, Health, examine
from riformer_deploy.common import dependencies
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.system.cuda_driver import Driver, Gpu

H200 = Gpu(name="NVIDIA H200", compute_capability="9.0", memory_bytes=139 * 2**30)


def _finding(name: str, *, thorough: bool = False) -> Finding:
    (found,) = [finding for finding in examine(thorough=thorough).findings if finding.name == name]
    return found


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, pretend_versions: Callable[..., None]) -> Callable[..., None]:
    """``pretend("tensorrt", "10.3", failure)``: that version is installed; importing it fails so."""

    def install(module: str, version: str | None, failure: Exception | None = None) -> None:
        real_import = importlib.import_module
        absent = {name for package in dependencies.PACKAGES.values() for name in package.distributions}
        preferred = (
            dependencies.PACKAGES[module].distributions[0] if module in dependencies.PACKAGES else None
        )

        def load(name: str, package: str | None = None) -> ModuleType:
            if name != module:
                return real_import(name, package)
            if failure is not None:
                raise failure
            return ModuleType(name)

        given = {preferred: version} if preferred is not None and version is not None else {}
        pretend_versions(absent.__contains__, given)
        monkeypatch.setattr(importlib, "import_module", load)

    return install


@pytest.fixture
def with_driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Driver], None]:
    def install(driver: Driver) -> None:
        monkeypatch.setattr(doctor, "query_driver", lambda: driver)

    return install


def test_this_machine_is_described_without_an_error_and_survives_json() -> None:
    report = examine()
    assert load_json(DoctorReport, dump_json(report)) == report
    for name in ("torch", "onnx", "onnxscript", "onnxsim"):
        (found,) = [finding for finding in report.findings if finding.name == name]
        assert (found.health, found.remedy) == (Health.OK, "")
        assert found.version == importlib.metadata.version(name)


def test_a_required_package_whose_module_is_gone_is_unusable_without_importing_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    found = _finding("torch")
    assert (found.health, found.version) == (Health.UNUSABLE, importlib.metadata.version("torch"))
    assert "there is no module torch" in found.detail


@pytest.mark.parametrize(
    ("version", "health", "detail"),
    [("2026.4", Health.OK, "not imported; --thorough does"), ("2023.1", Health.UNUSABLE, "too old")],
)
def test_an_optional_package_that_is_slow_is_looked_up_and_not_imported(
    pretend: Callable[..., None], version: str, health: Health, detail: str
) -> None:
    pretend("openvino", version, RuntimeError("imported"))
    found = _finding("OpenVINO")
    assert (found.health, found.version) == (health, version)
    assert detail in found.detail


@pytest.mark.parametrize(("module", "name"), [("cuda.bindings", "cuda-python"), ("pynvml", "nvidia-ml-py")])
@pytest.mark.parametrize(
    ("gpus", "health"), [((H200,), Health.UNUSABLE), ((), Health.OK)], ids=["a GPU", "no GPU"]
)
def test_what_drives_a_gpu_is_imported_where_there_is_one(
    pretend: Callable[..., None],
    with_driver: Callable[[Driver], None],
    module: str,
    name: str,
    gpus: tuple[Gpu, ...],
    health: Health,
) -> None:
    with_driver(Driver(cuda_version="13.0", gpus=gpus, problem=None if gpus else "no GPU"))
    pretend(module, "13.0", RuntimeError("its library is broken"))
    found = _finding(name)
    assert found.health is health
    assert ("its library is broken" in found.detail) is bool(gpus)


def test_onnx_runtime_is_told_with_its_providers() -> None:
    found = _finding("ONNX Runtime")
    assert found.health is Health.OK
    assert "CPUExecutionProvider" in found.detail


@pytest.mark.parametrize(
    ("module", "name", "requirement"),
    [
        ("onnxruntime", "ONNX Runtime", "onnxruntime>=1.20"),
        ("tensorrt", "TensorRT", "tensorrt>=10.0"),
        ("tensorrt_rtx", "TensorRT-RTX", "tensorrt-rtx>=1.0"),
        ("cuda.bindings", "cuda-python", "cuda-bindings>=12.6"),
        ("pycuda", "PyCUDA", "pycuda>=2024.1"),
    ],
)
def test_what_is_not_installed_is_missing_with_the_command_that_installs_it(
    pretend: Callable[..., None], module: str, name: str, requirement: str
) -> None:
    pretend(module, None)
    found = _finding(name)
    assert (found.health, found.version, found.detail) == (Health.MISSING, None, "not installed")
    assert found.remedy == f'pip install "{requirement}"'


def test_what_is_too_old_is_unusable_and_says_what_is_needed(pretend: Callable[..., None]) -> None:
    pretend("tensorrt", "8.6.1")
    found = _finding("TensorRT")
    assert (found.health, found.version) == (Health.UNUSABLE, "8.6.1")
    assert "8.6.1 is too old: 10.0 or newer is needed" in found.detail
    assert found.remedy


@pytest.mark.parametrize(
    "failure",
    [
        ImportError("libnvinfer.so.10: cannot open shared object file"),
        OSError("libcuda.so.1: no such file"),
        RuntimeError("TensorRT currently only builds wheels for x86_64"),
        AttributeError("module 'numpy' has no attribute 'bool'"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_fails_to_import_is_a_finding_with_the_reason_and_never_an_error(
    pretend: Callable[..., None], failure: Exception
) -> None:
    pretend("tensorrt", "10.3", failure)
    found = _finding("TensorRT", thorough=True)
    assert (found.health, found.version) == (Health.UNUSABLE, "10.3")
    assert str(failure) in found.detail
    assert found.remedy


@pytest.mark.parametrize(
    "failure",
    [
        ImportError("undefined symbol"),
        OSError("libgomp.so.1: no such file"),
        RuntimeError("module compiled against another ABI version of NumPy"),
        AttributeError("_ARRAY_API not found"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_required_package_that_fails_to_import_is_a_finding_too(
    pretend: Callable[..., None], failure: Exception
) -> None:
    version = importlib.metadata.version("onnxsim")
    pretend("onnxsim", None, failure)
    found = _finding("onnxsim", thorough=True)
    assert (found.health, found.version) == (Health.UNUSABLE, version)
    assert str(failure) in found.detail
    assert "pip install" in found.remedy


def test_a_required_package_that_is_gone_is_missing(pretend_versions: Callable[..., None]) -> None:
    pretend_versions(lambda name: name == "onnxscript")
    found = _finding("onnxscript")
    assert (found.health, found.version, found.detail) == (Health.MISSING, None, "not installed")
    assert "pip install" in found.remedy


@pytest.mark.parametrize(
    ("driver", "health", "version", "detail"),
    [
        (Driver(cuda_version=None, gpus=(), problem="no driver"), Health.MISSING, None, "no driver"),
        (Driver(cuda_version="12.6", gpus=(), problem="no GPU"), Health.UNUSABLE, "CUDA 12.6", "no GPU"),
        (Driver(cuda_version="13.0", gpus=(H200,), problem=None), Health.OK, "CUDA 13.0", "1 GPU(s)"),
    ],
    ids=["no driver", "no GPU", "a GPU"],
)
def test_the_driver_is_missing_unusable_or_ok(
    with_driver: Callable[[Driver], None],
    driver: Driver,
    health: Health,
    version: str | None,
    detail: str,
) -> None:
    with_driver(driver)
    found = _finding("NVIDIA driver")
    assert (found.health, found.version, found.detail) == (health, version, detail)
    assert bool(found.remedy) == (health is not Health.OK)


@pytest.mark.parametrize(
    ("version", "capability", "note"),
    [
        ("1.7.1.116", "9.0", "; TensorRT-RTX 1.7.1.116 does not support it"),
        ("1.7.1.116", "8.9", ""),
        ("9.9", "9.0", ""),
        (None, "9.0", ""),
    ],
)
def test_a_gpu_that_the_installed_rtx_does_not_support_is_told(
    monkeypatch: pytest.MonkeyPatch,
    with_driver: Callable[[Driver], None],
    version: str | None,
    capability: str,
    note: str,
) -> None:
    with_driver(
        Driver(cuda_version="13.0", gpus=(replace(H200, compute_capability=capability),), problem=None)
    )
    real = dependencies.installed_version
    monkeypatch.setattr(
        doctor, "installed_version", lambda name: version if name == "tensorrt_rtx" else real(name)
    )
    assert _finding("NVIDIA H200").detail == f"139 GiB{note}"


def test_every_gpu_is_a_finding_of_its_own(
    monkeypatch: pytest.MonkeyPatch, with_driver: Callable[[Driver], None]
) -> None:
    monkeypatch.setattr(doctor, "_rtx_note", lambda _gpu: "")  # whatever is installed here
    with_driver(Driver(cuda_version="13.0", gpus=(H200, H200), problem=None))
    gpus = [finding for finding in examine().findings if finding.name == "NVIDIA H200"]
    assert len(gpus) == 2
    assert (gpus[0].health, gpus[0].version, gpus[0].detail) == (
        Health.OK,
        "compute capability 9.0",
        "139 GiB",
    )
