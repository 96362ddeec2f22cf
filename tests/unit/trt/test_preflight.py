from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.bundle.engine_metadata import (
    CURRENT,
    BatchProfile,
    BuildSettings,
    EngineArtifact,
    TensorRTFlavor,
)
from riformer_deploy.common.enums import HardwareCompatibility, Precision
from riformer_deploy.common.errors import EngineUnfitError, MissingDependencyError
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.trt import preflight as module
from riformer_deploy.trt.fit_checks import Host
from riformer_deploy.trt.invalidity import remedy_of
from riformer_deploy.trt.mismatch import Mismatch
from riformer_deploy.trt.preflight import preflight, preflight_here, require_fit, this_host
from tests.manifests import engine_of

PLAN = b"plan" * 100
NOT_ON_THIS_GPU = (
    "TensorRT-RTX does not run on this GPU, whatever it builds. Run `riformer-deploy build --precision fp32 "
    "--backend tensorrt` here, or take the bundle to another GPU."
)
CLOSED = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
NONE, SAME, AMPERE_PLUS = HardwareCompatibility


def driver_of(capability: str, cuda: str | None = "13.0") -> Driver:
    gpu = Gpu(name=f"GPU {capability}", compute_capability=capability, memory_bytes=1 << 30)
    return Driver(cuda_version=cuda, gpus=(gpu,), problem=None)


def host_of(
    capability: str = "8.9", *, trt: str | None = "10.16.0.1", rtx: str | None = "1.7.1", cuda: str = "13.0"
) -> Host:
    return Host(
        versions={TensorRTFlavor.TENSORRT: trt, TensorRTFlavor.TENSORRT_RTX: rtx},
        driver=driver_of(capability, cuda),
    )


def artifact_of(backend: TensorRTFlavor = TensorRTFlavor.TENSORRT, **settings: Any) -> EngineArtifact:
    """An engine of ``PLAN`` that fits ``host_of()``."""
    rtx = backend is TensorRTFlavor.TENSORRT_RTX
    return engine_of(
        PLAN,
        backend=backend,
        backend_version="1.7.1" if rtx else "10.16.0.1",
        backend_cuda=13,
        gpu=None if rtx else "GPU 8.9",
        gpu_compute_capability=None if rtx else "8.9",
        profiles=(
            BatchProfile(minimum=1, optimum=1, maximum=1),
            BatchProfile(minimum=4, optimum=8, maximum=16),
        ),
        settings=BuildSettings(**settings),
    )


def changed(artifact: EngineArtifact, **fields: Any) -> EngineArtifact:
    """With other fields in the engine metadata."""
    return dataclasses.replace(artifact, metadata=dataclasses.replace(artifact.metadata, **fields))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.fp32.tensorrt.engine"
    path.write_bytes(PLAN)
    return path


Validity = Callable[[bytes], tuple[str, tuple[str, ...]] | None]


def unasked(_plan: bytes) -> None:
    pytest.fail("the plan must not reach the backend")


@pytest.mark.parametrize("backend", TensorRTFlavor)
def test_what_fits_has_no_findings_and_is_not_refused(backend: TensorRTFlavor, plan: Path) -> None:
    artifact = artifact_of(backend)
    findings = preflight(artifact, plan, host_of(), batch=8)
    assert findings == ()
    require_fit(artifact, findings)


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(PLAN[:-7])


def _alter(path: Path) -> None:
    path.write_bytes(b"P" + PLAN[1:])


def _lengthen(path: Path) -> None:
    path.write_bytes(PLAN + b"\0")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_remove, "cannot be read: No such file or directory."),
        (_truncate, "is truncated: 393 bytes, 400 were written."),
        (_alter, f"was altered: its sha256 is {hashlib.sha256(b'P' + PLAN[1:]).hexdigest()}, expected "),
        (_lengthen, "is too long: 401 bytes, 400 were written."),
    ],
    ids=["missing", "truncated", "altered", "longer"],
)
def test_a_file_that_is_not_the_one_that_was_built_is_told_and_never_shown_to_the_backend(
    plan: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(plan)
    (finding,) = preflight(artifact_of(), plan, host_of(), validity=unasked)
    assert finding.problem.startswith(f"{plan} {said}")
    assert finding.remedy == (
        "Restore it. Run `riformer-deploy build --precision fp32 --backend tensorrt` again if it is lost."
    )


@pytest.mark.parametrize("backend", TensorRTFlavor)
def test_a_backend_that_is_absent_is_named_with_the_command_that_installs_that_version(
    backend: TensorRTFlavor, plan: Path
) -> None:
    (finding,) = preflight(artifact_of(backend), plan, host_of(trt=None, rtx=None))
    version = artifact_of(backend).metadata.backend_version
    assert finding.problem == f"{backend.label} is not installed."
    assert finding.remedy == f'Run: pip install "{backend}=={version}".'


@pytest.mark.parametrize(
    ("built", "here", "compatible", "fits"),
    [
        ("10.16.0.1", "10.16.0.1", False, True),
        ("10.16.0.1", "10.16.0.1.post1", False, True),  # the same libraries, packaged again
        ("10.16.0.1", "10.16.0.2", False, False),
        ("10.16.0.1", "10.14.0.0", False, False),
        ("10.16.0.1", "10.16.0.2", True, True),
        ("10.16.0.1", "10.14.0.0", True, False),
        ("8.6.1", "10.0.1", True, True),
        ("10.16.0.1", "11.4.0.0", True, True),
        ("11.4.0.0", "10.16.0.1", True, False),
        ("8.6.1", "11.4.0.0", True, False),
        ("10.16.0.1", "12.0.0", True, False),
        ("10.16.0.1", "nightly", True, False),
        ("nightly", "nightly", False, True),
    ],
)
def test_another_version_runs_an_engine_only_if_it_was_made_for_that_and_is_newer(
    plan: Path, built: str, here: str, *, compatible: bool, fits: bool
) -> None:
    artifact = changed(artifact_of(version_compatible=compatible), backend_version=built)
    findings = preflight(artifact, plan, host_of(trt=here))
    assert (findings == ()) == fits
    if not fits:
        (finding,) = findings
        assert f"it was built by TensorRT {built}; {here} is installed." in finding.problem
        assert "`riformer-deploy build --precision fp32 --backend tensorrt` again" in finding.remedy
        assert f'pip install "tensorrt=={built}"' in finding.remedy
        numbered = compatible and here != "nightly"
        assert ("run on newer versions only" in finding.problem) == numbered


@pytest.mark.parametrize(
    ("compatibility", "built", "here", "fits"),
    [
        (NONE, "8.9", "8.9", True),
        (NONE, "8.9", "8.6", False),
        (NONE, "9.0", "10.0", False),
        (SAME, "8.9", "8.9", True),
        (SAME, "8.9", "9.0", False),
        (AMPERE_PLUS, "8.9", "8.0", True),
        (AMPERE_PLUS, "8.0", "12.0", True),
        (AMPERE_PLUS, "8.9", "7.5", False),
    ],
)
def test_an_engine_of_tensorrt_runs_on_its_gpus_compute_capability_or_on_ampere_and_later(
    plan: Path, compatibility: HardwareCompatibility, built: str, here: str, *, fits: bool
) -> None:
    artifact = changed(artifact_of(hardware_compatibility=compatibility), gpu_compute_capability=built)
    findings = preflight(artifact, plan, host_of(here))
    assert (findings == ()) == fits
    if not fits:
        (finding,) = findings
        meant = "8.0 and later" if compatibility is AMPERE_PLUS else built
        assert finding.problem == f"it is for compute capability {meant}; GPU {here} has {here}."
        assert finding.remedy.endswith("again on this GPU.")


@pytest.mark.parametrize(
    ("targets", "here", "fits"),
    [
        ((), "8.0", True),
        ((), "8.6", True),
        ((), "12.1", True),
        ((), "12.2", True),
        ((), "13.0", True),
        ((), "7.5", False),
        (("8.6", "8.9"), "8.9", True),
        (("8.6", "8.9"), "8.0", False),
        (("8.6", "8.9"), "12.0", False),
        (("7.5",), "7.5", True),
    ],
)
def test_an_engine_of_rtx_runs_on_what_it_was_built_for_by_default_what_its_version_says(
    plan: Path, targets: tuple[str, ...], here: str, *, fits: bool
) -> None:
    artifact = artifact_of(TensorRTFlavor.TENSORRT_RTX, compute_capabilities=targets)
    findings = preflight(artifact, plan, host_of(here))
    assert (findings == ()) == fits
    if not fits:
        (finding,) = findings
        meant = ", ".join(targets) or "8.0, 8.6, 8.9, 12.0 and later"
        assert finding.problem == f"it is for compute capability {meant}; GPU {here} has {here}."
        assert f"--compute-capability {here}" in finding.remedy
        assert ("or without --compute-capability" in finding.remedy) == (here != "7.5")


@pytest.mark.parametrize("here", ["8.7", "9.0", "10.0", "10.3", "11.0", "6.1"])
@pytest.mark.parametrize("targets", [(), ("8.9",), (CURRENT,)], ids=str)
def test_a_gpu_that_rtx_does_not_support_is_told_so_and_not_to_build_again(
    plan: Path, targets: tuple[str, ...], here: str
) -> None:
    artifact = artifact_of(TensorRTFlavor.TENSORRT_RTX, compute_capabilities=targets)
    artifact = changed(artifact, gpu_compute_capability=here)
    (finding,) = preflight(artifact, plan, host_of(here), validity=unasked)
    assert finding.problem.endswith(f"GPU {here} has {here}, which TensorRT-RTX 1.7.1 does not support.")
    assert finding.remedy == NOT_ON_THIS_GPU


def test_a_gpu_that_only_the_default_reaches_is_not_to_be_named(plan: Path) -> None:
    artifact = artifact_of(TensorRTFlavor.TENSORRT_RTX, compute_capabilities=("8.9",))
    (finding,) = preflight(artifact, plan, host_of("12.2"))
    assert finding.remedy.endswith("--backend tensorrt-rtx` again without --compute-capability.")


@pytest.mark.parametrize(("here", "fits"), [("8.9", True), ("8.6", False), ("12.0", False)])
def test_an_engine_for_the_gpu_that_built_it_runs_on_that_compute_capability_alone(
    plan: Path, here: str, *, fits: bool
) -> None:
    artifact = artifact_of(TensorRTFlavor.TENSORRT_RTX, compute_capabilities=(CURRENT,))
    artifact = changed(artifact, gpu="GPU 8.9", gpu_compute_capability="8.9")
    findings = preflight(artifact, plan, host_of(here))
    assert (findings == ()) == fits
    if not fits:
        (finding,) = findings
        assert finding.problem == f"it is for compute capability 8.9; GPU {here} has {here}."
        assert f"--compute-capability {here}" in finding.remedy


@pytest.mark.parametrize("verdict", ["VALID", "INVALID"])
def test_a_version_of_rtx_whose_gpus_are_not_known_is_asked(plan: Path, verdict: str) -> None:
    artifact = changed(artifact_of(TensorRTFlavor.TENSORRT_RTX), backend_version="9.9.1")
    told = (verdict, ("UNSUPPORTED_CC",))
    findings = preflight(artifact, plan, host_of("9.0", rtx="9.9.1"), validity=lambda _plan: told)
    assert [finding.remedy for finding in findings] == ([NOT_ON_THIS_GPU] if verdict == "INVALID" else [])


@pytest.mark.parametrize(
    ("capability", "fits"), [("8.0", False), ("8.6", False), ("8.9", True), ("12.0", True)]
)
def test_an_engine_in_fp8_needs_a_gpu_that_has_it(plan: Path, capability: str, *, fits: bool) -> None:
    artifact = artifact_of(TensorRTFlavor.TENSORRT_RTX)
    assert preflight(artifact, plan, host_of(capability)) == ()
    findings = preflight(dataclasses.replace(artifact, precision=Precision.FP8), plan, host_of(capability))
    assert [finding.problem for finding in findings] == [
        f"it computes in fp8, which needs compute capability 8.9 or later; GPU {capability} has {capability}."
    ] * (not fits)
    assert all("int8 or the fp16" in finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("backend", "capability"), [(TensorRTFlavor.TENSORRT_RTX, "7.5"), (TensorRTFlavor.TENSORRT, "8.6")]
)
def test_an_engine_in_fp8_is_not_to_be_built_again_for_a_gpu_that_lacks_it(
    plan: Path, backend: TensorRTFlavor, capability: str
) -> None:
    artifact = dataclasses.replace(artifact_of(backend), precision=Precision.FP8)
    findings = preflight(artifact, plan, host_of(capability))
    assert len(findings) == 2
    assert {finding.remedy for finding in findings} == {"Build the int8 or the fp16 model for this GPU."}


def test_a_gpu_that_rtx_does_not_support_and_that_lacks_fp8_gets_no_build_in_fp8(plan: Path) -> None:
    artifact = dataclasses.replace(artifact_of(TensorRTFlavor.TENSORRT_RTX), precision=Precision.FP8)
    findings = preflight(artifact, plan, host_of("8.7"))
    assert findings[0].remedy == "Take the bundle to another GPU."
    assert not any("--precision fp8" in finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("needed", "offered", "fits"),
    [(13, "13.0", True), (12, "13.1", True), (13, "12.9", False), (None, "11.0", True), (13, None, True)],
)
def test_a_driver_that_is_too_old_for_the_libraries_is_told_with_the_one_that_is_needed(
    plan: Path, needed: int | None, offered: str | None, *, fits: bool
) -> None:
    host = dataclasses.replace(host_of(), driver=driver_of("8.9", offered))
    findings = preflight(changed(artifact_of(), backend_cuda=needed), plan, host)
    assert (findings == ()) == fits
    if not fits:
        (finding,) = findings
        assert finding.problem == f"its libraries need CUDA {needed}; the driver supports {offered}."
        assert finding.remedy == f"Install a driver for CUDA {needed} or newer."


def test_a_machine_without_a_gpu_is_told_with_the_reason(plan: Path) -> None:
    host = dataclasses.replace(host_of(), driver=CLOSED)
    (finding,) = preflight(artifact_of(), plan, host, validity=unasked)
    assert finding.problem == f"there is no NVIDIA GPU to run on: {CLOSED.problem}."
    assert finding.remedy == "Take the bundle to a machine with a GPU."


@pytest.mark.parametrize(("batch", "fits"), [(1, True), (4, True), (16, True), (2, False), (17, False)])
def test_a_batch_that_no_profile_holds_is_told_with_the_profiles(
    plan: Path, batch: int, *, fits: bool
) -> None:
    findings = preflight(artifact_of(), plan, host_of(), batch=batch, validity=lambda _plan: None)
    assert (findings == ()) == fits
    if not fits:
        (finding,) = findings
        assert finding.problem == (
            f"it does not take batch {batch}: its profiles are 1:1:1, 4:8:16 (MIN:OPT:MAX)."
        )
        assert finding.remedy.endswith(f"again with a --profile that holds {batch}.")


def test_everything_that_is_wrong_is_told_at_once_in_one_error(plan: Path) -> None:
    _truncate(plan)
    artifact = artifact_of()
    host = host_of("7.5", trt="11.0", cuda="12.4")
    findings = preflight(artifact, plan, host, batch=99, validity=unasked)
    assert len(findings) == 5
    with pytest.raises(EngineUnfitError) as caught:
        require_fit(artifact, findings)
    assert caught.value.message == "The engine model.fp32.tensorrt.engine cannot run here."
    assert caught.value.details == tuple(finding.problem for finding in findings)
    for finding in findings:
        assert finding.remedy in caught.value.remedy
    assert caught.value.exit_code == 51


def test_a_remedy_that_several_findings_share_is_told_once() -> None:
    findings = (Mismatch(problem="a", remedy="Do it."), Mismatch(problem="b", remedy="Do it."))
    with pytest.raises(EngineUnfitError) as caught:
        require_fit(artifact_of(), findings)
    assert (caught.value.details, caught.value.remedy) == (("a", "b"), "Do it.")


@pytest.mark.parametrize("reasons", [("VERSION_MISMATCH", "OLD_CUDA_DRIVER"), ("CUDA_ERROR",), ()], ids=str)
def test_what_the_backend_calls_invalid_does_not_fit_and_each_reason_has_its_remedy(
    plan: Path, reasons: tuple[str, ...]
) -> None:
    artifact = artifact_of(TensorRTFlavor.TENSORRT_RTX)
    findings = preflight(artifact, plan, host_of(), validity=lambda _plan: ("INVALID", reasons))
    named = reasons or ("it names no reason",)
    assert findings == tuple(
        Mismatch(problem=f"TensorRT-RTX calls it invalid: {reason}.", remedy=remedy_of(reason, artifact))
        for reason in named
    )


@pytest.mark.parametrize("told", [("VALID", ()), ("SUBOPTIMAL", ("SLOW",)), None], ids=str)
def test_the_backend_is_given_the_plan_itself_and_what_it_does_not_call_invalid_fits(
    plan: Path, told: tuple[str, tuple[str, ...]] | None
) -> None:
    asked: list[bytes] = []

    def validity(content: bytes) -> tuple[str, tuple[str, ...]] | None:
        asked.append(content)
        return told

    assert preflight(artifact_of(TensorRTFlavor.TENSORRT_RTX), plan, host_of(), validity=validity) == ()
    assert asked == [PLAN]


def _this_machine(monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
    monkeypatch.setattr(module, "this_host", lambda: host)


def test_here_the_installed_backend_is_asked_for_its_verdict(
    monkeypatch: pytest.MonkeyPatch, plan: Path
) -> None:
    asked: list[tuple[object, bytes]] = []

    def validity(trt: object, content: bytes) -> tuple[str, tuple[str, ...]]:
        asked.append((trt, content))
        return "INVALID", ("OLD_CUDA_DRIVER",)

    _this_machine(monkeypatch, host_of())
    monkeypatch.setattr(module, "load", lambda backend: f"bindings of {backend}")
    monkeypatch.setattr(module, "validity", validity)
    (finding,) = preflight_here(artifact_of(TensorRTFlavor.TENSORRT_RTX), plan)
    assert asked == [("bindings of tensorrt-rtx", PLAN)]
    assert "TensorRT-RTX calls it invalid: OLD_CUDA_DRIVER." in finding.problem


def test_here_a_backend_that_is_installed_but_broken_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, plan: Path
) -> None:
    def broken(_backend: TensorRTFlavor) -> None:
        raise MissingDependencyError("tensorrt cannot be imported: no libnvinfer.so", remedy="Look there.")

    _this_machine(monkeypatch, host_of())
    monkeypatch.setattr(module, "load", broken)
    assert preflight_here(artifact_of(), plan) == (
        Mismatch(problem="tensorrt cannot be imported: no libnvinfer.so", remedy="Look there."),
    )


def test_here_a_damaged_file_never_reaches_the_backend(monkeypatch: pytest.MonkeyPatch, plan: Path) -> None:
    _alter(plan)
    _this_machine(monkeypatch, host_of())
    monkeypatch.setattr(module, "load", lambda _backend: pytest.fail("the backend must not be loaded"))
    (finding,) = preflight_here(artifact_of(), plan)
    assert "was altered" in finding.problem


def test_this_machine_is_asked_for_its_backends_and_its_driver(
    monkeypatch: pytest.MonkeyPatch, pretend_versions: Callable[..., None]
) -> None:
    monkeypatch.setattr(module, "query_driver", lambda: CLOSED)
    pretend_versions(lambda _: True, {"tensorrt": "10.16.0.1", "tensorrt-rtx": "1.7.1"})
    assert this_host() == Host(
        versions={TensorRTFlavor.TENSORRT: "10.16.0.1", TensorRTFlavor.TENSORRT_RTX: "1.7.1"}, driver=CLOSED
    )
