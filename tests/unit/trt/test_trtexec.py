from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import HardwareCompatibility, Precision
from riformer_deploy.trt.trtexec import TrtexecVersion, bench_command, build_command, command_lines
from tests.manifests import file_record, graph_of

FOLDER = Path("my bundle's")
V10, V11 = TrtexecVersion
PLAIN = BuildSettings()
DEFAULT = (BatchProfile(minimum=1, optimum=8, maximum=32),)


def _graph(batch: int | str = "batch") -> OnnxArtifact:
    lowering = LoweringConfig(precision=Precision.FP16)
    return dataclasses.replace(graph_of(file_record("model.fp16.onnx"), batch), lowering=lowering)


def _words(line: str) -> list[str]:
    words = shlex.split(line)
    assert words[0] == "trtexec"
    assert len(set(words)) == len(words)
    return words[1:]


def _built(settings: BuildSettings = PLAIN, version: TrtexecVersion = V10, **changes: object) -> list[str]:
    batch = changes.get("batch", "batch")
    assert isinstance(batch, int | str)
    profiles, cache = changes.get("profiles", DEFAULT), changes.get("cache")
    assert isinstance(profiles, tuple)
    assert cache is None or isinstance(cache, Path)
    return _words(build_command(_graph(batch), FOLDER, profiles, settings, version, cache))


def test_a_line_survives_the_shell_whatever_the_folder_is_called() -> None:
    words = _built()
    assert words[:2] == [
        "--onnx=my bundle's/model.fp16.onnx",
        "--saveEngine=model.fp16.trtexec.plan",
    ]


@pytest.mark.parametrize("version", TrtexecVersion)
def test_what_is_spelled_out_where_nothing_was_asked_for(version: TrtexecVersion) -> None:
    strong = ["--stronglyTyped"] if version is V10 else []  # 11.x refuses what it no longer has
    assert _built(version=version)[2:] == [
        *strong,
        "--minShapes=images:1x3x64x96",
        "--optShapes=images:8x3x64x96",
        "--maxShapes=images:32x3x64x96",
        "--noTF32",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]


@pytest.mark.parametrize("version", TrtexecVersion)
@pytest.mark.parametrize(
    ("settings", "added"),
    [
        (BuildSettings(refittable=True), "--refit"),
        (BuildSettings(version_compatible=True), "--versionCompatible"),
        (
            BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
            "--hardwareCompatibilityLevel=ampere+",
        ),
        (
            BuildSettings(hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY),
            "--hardwareCompatibilityLevel=sameComputeCapability",
        ),
        (BuildSettings(optimization_level=0), "--builderOptimizationLevel=0"),
        (BuildSettings(workspace_bytes=1 << 29), "--memPoolSize=workspace:536870912B"),
    ],
)
def test_every_setting_is_one_word_more(settings: BuildSettings, added: str, version: TrtexecVersion) -> None:
    assert sorted(_built(settings, version)) == sorted([*_built(version=version), added])


def test_tf32_is_what_is_no_longer_forbidden() -> None:
    assert [word for word in _built() if word not in _built(BuildSettings(tf32=True))] == ["--noTF32"]


def test_a_timing_cache_is_named() -> None:
    assert "--timingCacheFile=kernel times" in _built(cache=Path("kernel times"))


def test_several_profiles_are_numbered_in_order() -> None:
    second = BatchProfile(minimum=1, optimum=1, maximum=1)
    words = _words(build_command(_graph(), FOLDER, DEFAULT, PLAIN, V11))
    assert not [word for word in words if word.startswith("--profile=")]
    line = build_command(_graph(), FOLDER, (*DEFAULT, second), PLAIN, V11)
    shapes = [word for word in shlex.split(line) if word.startswith("--profile=") or "Shapes" in word]
    assert [word.partition(":")[0] for word in shapes] == [
        "--profile=0", "--minShapes=images", "--optShapes=images", "--maxShapes=images",
        "--profile=1", "--minShapes=images", "--optShapes=images", "--maxShapes=images",
    ]  # fmt: skip
    assert shapes[-1] == "--maxShapes=images:1x3x64x96"


@pytest.mark.parametrize("version", TrtexecVersion)
def test_a_graph_of_fixed_batch_takes_no_shapes(version: TrtexecVersion) -> None:
    fixed = (BatchProfile(minimum=4, optimum=4, maximum=4),)
    assert not [word for word in _built(version=version, batch=4, profiles=fixed) if "Shapes" in word]
    line = bench_command(_graph(4), 4, version, whole=True)
    assert not [word for word in _words(line) if "hapes" in word]


@pytest.mark.parametrize("version", TrtexecVersion)
def test_no_line_asks_for_a_precision_since_the_graph_has_it(version: TrtexecVersion) -> None:
    lines = command_lines(_graph(), FOLDER, DEFAULT, BuildSettings(tf32=True))
    words = {word for line in lines if version in line or line.startswith("trtexec") for word in line.split()}
    assert not words & {"--fp16", "--int8", "--bf16", "--fp8", "--best", "--calib"}


@pytest.mark.parametrize(
    ("version", "whole", "meant"),
    [
        (V10, False, {"--useCudaGraph", "--noDataTransfers", "--useSpinWait"}),
        (V10, True, set()),  # what 10.x does by itself
        (V11, False, set()),  # what 11.x does by itself
        (V11, True, {"--noCudaGraph", "--includeDataTransfers", "--noSpinWait"}),
    ],
)
def test_lines_that_time_say_what_differs_from_the_versions_own_way(
    version: TrtexecVersion, *, whole: bool, meant: set[str]
) -> None:
    words = _words(bench_command(_graph(), 8, version, whole=whole))
    assert words[:2] == ["--loadEngine=model.fp16.trtexec.plan", "--shapes=images:8x3x64x96"]
    timing = {"--useCudaGraph", "--noCudaGraph", "--noDataTransfers", "--includeDataTransfers",
              "--useSpinWait", "--noSpinWait"}  # fmt: skip
    assert set(words) & timing == meant
    assert words[-3:] == ["--warmUp=500", "--duration=10", "--percentile=90,95,99"]


def test_for_each_version_there_is_a_line_that_builds_and_two_that_time_what_it_built() -> None:
    lines = command_lines(_graph(), FOLDER, DEFAULT, PLAIN, Path("cache"))
    assert len(lines) == 12
    for version, part in zip(TrtexecVersion, (lines[:6], lines[6:]), strict=True):
        comments, commands = part[::2], part[1::2]
        assert all(comment.startswith(f"# TensorRT {version}: ") for comment in comments)
        assert commands == (
            build_command(_graph(), FOLDER, DEFAULT, PLAIN, version, Path("cache")),
            bench_command(_graph(), 8, version, whole=False),
            bench_command(_graph(), 8, version, whole=True),
        )
        saved = next(word for word in _words(commands[0]) if word.startswith("--saveEngine="))
        for command in commands[1:]:
            assert saved.replace("save", "load") in _words(command)
