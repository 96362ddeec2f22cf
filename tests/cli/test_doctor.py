from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.api import doctor
from riformer_deploy.api.doctor import DoctorReport, Health
from riformer_deploy.common import dependencies
from riformer_deploy.common.serialization import load_json
from riformer_deploy.system.cuda_driver import Driver

Run = Callable[..., CompletedProcess[str]]
OPTIONAL = [package for name, package in dependencies.PACKAGES.items() if name not in ("torch", "onnx")]


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, pretend_versions: Callable[..., None]) -> None:
    absent = {name for package in OPTIONAL for name in package.distributions}
    pretend_versions(absent.__contains__)
    none = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
    monkeypatch.setattr(doctor, "query_driver", lambda: none)


def test_json_is_the_report_and_nothing_else(cli: Run) -> None:
    ran = cli("doctor", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    report = load_json(DoctorReport, ran.stdout)
    assert set(json.loads(ran.stdout)) == {"machine", "findings", "folders", "telemetry"}
    assert {finding.name: finding.health for finding in report.findings}["torch"] is Health.OK


@pytest.mark.usefixtures("bare_machine")
def test_a_bare_machine_is_described_with_each_remedy_in_one_piece(cli: Run) -> None:
    ran = cli("doctor")
    assert (ran.returncode, ran.stderr) == (0, "Next: riformer-deploy export CKPT\n")
    for package in OPTIONAL:
        assert package.install_command in ran.stdout
    assert "no NVIDIA driver" in ran.stdout
    assert ran.stdout.count(" missing ") == 14


def test_folders_outside_a_bundle_are_named_and_with_verbose_those_that_are_not_there(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    kept = tmp_path / "riformer-deploy" / "calibrations"
    kept.mkdir(parents=True)
    usual, everything = cli("doctor").stdout, cli("doctor", "-v").stdout
    assert f"  {kept}\n    calibrations: export, sensitivity\n    XDG_CACHE_HOME moves it\n" in usual
    assert str(tmp_path / "torch") not in usual
    assert f"  {tmp_path / 'torch' / 'hub' / 'checkpoints'}\n" in everything
    assert "Reports of use by ONNX Runtime: off" in usual


def test_slow_packages_are_imported_only_where_that_is_asked_for(cli: Run) -> None:
    for options, detail in (((), "not imported; --thorough does"), (("--thorough",), "")):
        report = load_json(DoctorReport, cli("doctor", "--json", *options).stdout)
        found = {finding.name: finding for finding in report.findings}
        for name in ("torch", "onnx", "onnxscript", "onnxsim"):
            assert (found[name].health, found[name].detail) == (Health.OK, detail)


@pytest.mark.usefixtures("bare_machine")
def test_a_bare_machine_is_no_error_for_scripts_either(cli: Run) -> None:
    ran = cli("doctor", "--json")
    assert ran.returncode == 0
    report = load_json(DoctorReport, ran.stdout)
    missing = {finding.name for finding in report.findings if finding.health is Health.MISSING}
    assert missing == {
        "ONNX Runtime", "OpenVINO", "TensorRT", "TensorRT-RTX", "cuda-python", "PyCUDA", "nvidia-ml-py",
        "OpenCV", "Jinja2", "matplotlib", "tritonclient", "Ray", "PyArrow",
        "NVIDIA driver",
    }  # fmt: skip
    assert all(finding.remedy for finding in report.findings if finding.health is not Health.OK)
