from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from riformer_deploy.bundle.engine_metadata import (
    BatchProfile,
    BuildSettings,
    EngineArtifact,
    TensorRTFlavor,
    has_precision,
)
from riformer_deploy.common.enums import HardwareCompatibility, Precision
from riformer_deploy.common.serialization import dump_json, load_json
from tests.manifests import engine_of, file_record

RTX: dict[str, Any] = {"backend": TensorRTFlavor.TENSORRT_RTX, "backend_version": "1.7.1.116"}


def _profile(low: int, middle: int, high: int) -> BatchProfile:
    return BatchProfile(minimum=low, optimum=middle, maximum=high)


def test_a_flavor_knows_its_module_and_its_label() -> None:
    assert [(backend.module, backend.label) for backend in TensorRTFlavor] == [
        ("tensorrt", "TensorRT"),
        ("tensorrt_rtx", "TensorRT-RTX"),
    ]


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 3), (1, 4, 3), (3, 2, 1), (-1, -1, -1)])
def test_a_profile_out_of_order_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="1 <= MIN <= OPT <= MAX"):
        _profile(*sizes)


def test_a_profile_holds_its_ends_and_reads_as_it_is_written() -> None:
    profile = _profile(2, 4, 8)
    assert [batch for batch in range(12) if profile.holds(batch)] == [2, 3, 4, 5, 6, 7, 8]
    assert str(profile) == "2:4:8"


@pytest.mark.parametrize(
    ("batch", "number"),
    [(1, 0), (2, 0), (3, 0), (4, 1), (8, 1), (16, 1), (17, None), (20, None), (33, None), (40, 2), (0, None)],
)
def test_the_profile_of_a_batch_is_the_one_tuned_nearest_to_it(batch: int, number: int | None) -> None:
    profiles = (_profile(1, 1, 8), _profile(2, 6, 16), _profile(40, 40, 40))
    assert engine_of(profiles=profiles).metadata.profile_of(batch) == number


def test_of_two_profiles_tuned_equally_near_the_first_is_taken() -> None:
    assert engine_of(profiles=(_profile(1, 1, 8), _profile(1, 5, 8))).metadata.profile_of(3) == 0


def test_the_span_is_from_the_smallest_to_the_largest_batch_tuned_for_the_first_profiles() -> None:
    assert engine_of(profiles=(_profile(4, 8, 16), _profile(1, 1, 2))).metadata.span == _profile(1, 8, 16)


@pytest.mark.parametrize(
    ("metadata", "targets"),
    [
        ({}, "8.9"),
        ({"gpu_compute_capability": None}, "of an unknown GPU"),
        (
            {"settings": BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS)},
            "8.0 and later",
        ),
        (
            {"settings": BuildSettings(hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY)},
            "8.9",
        ),
        (RTX, "8.0, 8.6, 8.9, 12.0 and later"),
        ({**RTX, "backend_version": "9.9"}, "of its builder's own choice"),
        ({**RTX, "settings": BuildSettings(compute_capabilities=("current",))}, "8.9"),
        (
            {**RTX, "settings": BuildSettings(compute_capabilities=("8.6", "12.0"))},
            "8.6, 12.0",
        ),
    ],
)
def test_targets_are_the_gpus_that_run_it_and_not_always_the_one_it_was_built_on(
    metadata: dict[str, Any], targets: str
) -> None:
    assert engine_of(**metadata).metadata.targets == targets


@pytest.mark.parametrize(
    ("settings", "targets"),
    [
        (BuildSettings(), "8.0, 8.6, 8.9, 12.0 and later, in fp8 from 8.9"),
        (BuildSettings(compute_capabilities=("12.0",)), "12.0"),
    ],
)
def test_an_engine_in_fp8_runs_on_no_ampere(settings: BuildSettings, targets: str) -> None:
    engine = engine_of(settings=settings, **RTX)
    assert engine.targets == engine.metadata.targets
    assert dataclasses.replace(engine, precision=Precision.FP8).targets == targets


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "9.0", "10.0", "12.0"])
def test_fp8_came_with_compute_capability_8_9(capability: str) -> None:
    assert has_precision(capability, Precision.FP8) is (capability not in {"8.0", "8.6"})
    assert has_precision(capability, Precision.INT8)


def test_an_engine_needs_a_profile() -> None:
    with pytest.raises(ValueError, match="at least one profile"):
        engine_of(profiles=())


def test_an_engine_with_the_engine_metadata_of_another_graphs_engine_is_refused() -> None:
    artifact = engine_of()
    other = dataclasses.replace(artifact.metadata, onnx_sha256="f" * 64)
    with pytest.raises(ValueError, match=r"model\.fp32\.tensorrt\.engine has the engine metadata of another"):
        dataclasses.replace(artifact, metadata=other)


def test_an_engine_has_a_name_and_lists_its_files_itself_first() -> None:
    artifact = engine_of(backend=TensorRTFlavor.TENSORRT_RTX)
    assert artifact.name == "TensorRT-RTX fp32"
    assert [record.path for record in artifact.files] == [
        "model.fp32.tensorrt-rtx.engine",
        "model.fp32.tensorrt-rtx.log",
    ]
    layers = file_record("model.fp32.tensorrt-rtx.layers.json")
    assert dataclasses.replace(artifact, layers=layers).files == (artifact.file, artifact.log, layers)


def test_an_engine_comes_back_equal_from_json() -> None:
    settings = BuildSettings(workspace_bytes=1, optimization_level=0, compute_capabilities=("8.9",))
    artifact = engine_of(settings=settings, backend_cuda=None, driver_cuda=None, engine_layers=None)
    assert load_json(EngineArtifact, dump_json(artifact)) == artifact
