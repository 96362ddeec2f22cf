from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.api import build
from riformer_deploy.api.build import BuildReport
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import HardwareCompatibility, Precision
from riformer_deploy.common.progress import Progress
from riformer_deploy.common.serialization import load_json
from riformer_deploy.trt import build_options
from riformer_deploy.trt.build_options import BuildOptions

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")
pytestmark = pytest.mark.usefixtures("no_gpu")

Run = Callable[..., CompletedProcess[str]]
ENGINE = "model.fp32.tensorrt-rtx.engine"


def _profile(low: int, middle: int, high: int) -> BatchProfile:
    return BatchProfile(minimum=low, optimum=middle, maximum=high)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ((), BuildOptions()),
        (
            ("--precision", "fp16", "--precision", "fp32", "--backend", "tensorrt"),
            BuildOptions(precisions=(Precision.FP16, Precision.FP32), backend=TensorRTFlavor.TENSORRT),
        ),
        (
            ("--profile", "1:8:32", "--profile", "64", "--backend", "tensorrt-rtx"),
            BuildOptions(
                profiles=(_profile(1, 8, 32), _profile(64, 64, 64)), backend=TensorRTFlavor.TENSORRT_RTX
            ),
        ),
        (("--image-size", "64x48"), BuildOptions(image_size_px=(64, 48))),
        (("--workspace", "2GiB"), BuildOptions(settings=BuildSettings(workspace_bytes=2 << 30))),
        (("--opt-level", "0"), BuildOptions(settings=BuildSettings(optimization_level=0))),
        (("--timing-cache", "t.cache"), BuildOptions(timing_cache=Path("t.cache"))),
        (
            ("--hardware-compat", "ampere-plus"),
            BuildOptions(settings=BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS)),
        ),
        (
            ("--compute-capability", "8.9", "--compute-capability", "12.0"),
            BuildOptions(settings=BuildSettings(compute_capabilities=("8.9", "12.0"))),
        ),
        (
            ("--version-compatible", "--refittable", "--tf32"),
            BuildOptions(settings=BuildSettings(version_compatible=True, refittable=True, tf32=True)),
        ),
        (("--no-tf32",), BuildOptions()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_command_line_is_what_the_library_is_asked_for(
    cli: Run,
    monkeypatch: pytest.MonkeyPatch,
    tiny_bundle: Path,
    line: tuple[str, ...],
    options: BuildOptions,
) -> None:
    asked: list[tuple[Path, BuildOptions]] = []

    def record(directory: Path, wanted: BuildOptions, _progress: Progress) -> BuildReport:
        asked.append((directory, wanted))
        return BuildReport(bundle=str(directory), engines=(), warnings=())

    monkeypatch.setattr(build, "build_engines", record)
    assert cli("build", tiny_bundle, *line).returncode == 0
    assert asked == [(tiny_bundle, options)]


@pytest.mark.untraced
def test_the_table_tells_every_engine_and_progress_is_a_line_each(
    cli: Run, tmp_path: Path, precise_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(precise_bundle, tmp_path / "precise"))
    monkeypatch.chdir(tmp_path)  # where there is one bundle, it is the one meant
    ran = cli("build", "--compute-capability", "8.9", "--compute-capability", "12.0", "--profile", "1:2:4")
    assert ran.returncode == 0, ran.stderr
    manifest = Bundle.open(bundle).manifest
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in ran.stdout.splitlines()
        if line.startswith("│")
    ]
    version = importlib.metadata.version("tensorrt-rtx")
    assert rows == [
        [
            engine.file.path,
            "8.9, 12.0",
            "1:2:4",
            f"{engine.file.size_bytes / 2**20:.2f}",
            f"{engine.metadata.build_ms / 1000:.1f}",
        ]
        for engine in manifest.engines
    ]
    for engine in manifest.engines:
        built = f"TensorRT-RTX {version}, sha256 {engine.file.sha256[:16]}"
        assert f"{engine.file.path}: {built}" in ran.stdout.splitlines()
    assert [row[0].split(".")[1] for row in rows] == ["fp32", "fp16", "int8"]
    steps = [f"building model.{p}.onnx" for p in ("fp32", "fp16", "int8")]
    assert ran.stderr.splitlines() == [*steps, "Next: riformer-deploy verify parity precise"]


def test_json_is_the_report_and_warnings_are_notes(
    cli: Run, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_options, "_MOST_VALUES", 2**62)  # to see what the builder warns of
    line = ("build", tiny_bundle_copy, "--profile", "1:2:2000000000", "--json")  # more than fits any GPU
    ran = cli(*line)
    assert ran.returncode == 0, ran.stderr
    report = load_json(BuildReport, ran.stdout)
    assert set(json.loads(ran.stdout)) == {field.name for field in dataclasses.fields(BuildReport)}
    assert report.engines == Bundle.open(tiny_bundle_copy).manifest.engines
    notes = [text for text in ran.stderr.splitlines() if text.startswith("note: ")]
    assert notes == [f"note: {text}" for text in report.warnings]
    assert notes[0].startswith("note: model.fp32.tensorrt-rtx: [WARNING] Profile kMAX values")


def test_trtexec_lines_are_printed_and_nothing_is_built(cli: Run, tiny_bundle_copy: Path) -> None:
    line = ("build", tiny_bundle_copy, "--print-trtexec", "--profile", "1:4:16", "--opt-level", "5")
    ran = cli(*line)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert len(lines) == 12
    build = shlex.split(lines[1])
    assert build[0] == "trtexec"
    assert f"--onnx={tiny_bundle_copy / 'model.fp32.onnx'}" in build
    assert {"--optShapes=images:4x3x64x48", "--builderOptimizationLevel=5", "--stronglyTyped"} < set(build)
    assert json.loads(cli(*line, "--json").stdout) == {"lines": lines}
    assert Bundle.open(tiny_bundle_copy).manifest.engines == ()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (("--precision", "fp4"), 2, "'fp4' is not one of"),
        (("--precision", "fp8"), 2, "holds no fp8 model, only fp32"),
        (("--profile", "8:1:2"), 2, "1 <= MIN <= OPT <= MAX"),
        (("--profile", "all"), 2, "say MIN:OPT:MAX"),
        (("--workspace", "lots"), 2, "say 512MiB, 4GiB"),
        (("--opt-level", "6"), 2, "0 to 5, got 6"),
        (("--image-size", "224"), 2, "take images of 64x48 px, not 224x224"),
        (("--precision", "int8"), 2, "holds no int8 model, only fp32"),
        (("--hardware-compat", "ampere-plus"), 2, "say --compute-capability"),
        (("--timing-cache", "cache"), 2, "--timing-cache: it times no kernels"),
        (("--compute-capability", "9.0"), 2, "not for 9.0"),
        (("--compute-capability", "current"), 50, "for the GPU of this machine, and no NVIDIA driver"),
        (("--compute-capability", "current", "--compute-capability", "8.9"), 2, "current stands alone"),
        (("--print-trtexec", "--compute-capability", "8.9"), 2, "see --hardware-compat"),
        (("--print-trtexec", "--backend", "tensorrt-rtx"), 2, "Leave --backend out"),
        (("--backend", "tensorrt"), 50, "TensorRT builds on a GPU only, and no NVIDIA driver"),
        (("--compute-capability", "7.5"), 42, "Leave 7.5 out of --compute-capability"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_has_its_exit_code_and_changes_nothing(
    cli: Run, tiny_bundle: Path, line: tuple[str, ...], code: int, said: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tiny_bundle, *tiny_bundle.iterdir())}
    before.pop(tiny_bundle)
    ran = cli("build", tiny_bundle, *line)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert {path: path.stat().st_mtime_ns for path in tiny_bundle.iterdir()} == before


def test_without_any_tensorrt_the_command_that_installs_one_is_told(
    cli: Run, pretend_versions: Callable[..., None], tiny_bundle: Path
) -> None:
    pretend_versions(lambda name: name.startswith("tensorrt"))
    for line, name in ((("build", tiny_bundle), "tensorrt-rtx"),
                       (("build", tiny_bundle, "--backend", "tensorrt-rtx"), "tensorrt-rtx")):  # fmt: skip
        ran = cli(*line)
        assert (ran.returncode, ran.stdout) == (20, "")
        assert f'pip install "{name}>=' in ran.stderr


def test_a_folder_that_is_no_bundle_exits_30(cli: Run, tmp_path: Path) -> None:
    ran = cli("build", tmp_path)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert f"{tmp_path} is not a bundle" in ran.stderr
