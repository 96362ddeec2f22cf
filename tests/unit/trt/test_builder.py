from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.common.errors import EngineBuildError, OptionError, RuntimeFailureError
from riformer_deploy.trt.bindings import TensorRT
from riformer_deploy.trt.builder import BuildRequest, BuiltPlan, build_plan, compute_capabilities
from tests.fakes.api import FLAVORS
from tests.fakes.gpu import FakeGpu
from tests.fakes.tensorrt import bindings
from tests.fakes.trt_building import PLAN_MARK, STEPS, write_graph

RTX = next(flavor for flavor in FLAVORS if "rtx" in flavor)
TENSORRT = [flavor for flavor in FLAVORS if flavor != RTX]
PROFILE = BatchProfile(minimum=1, optimum=4, maximum=8)


@dataclass
class Yard:
    """Builds with a fake flavor, and remembers what it was told."""

    trt: TensorRT
    request: BuildRequest
    steps: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)

    def build(self, **changes: Any) -> BuiltPlan:
        request = replace(self.request, **changes)
        return build_plan(self.trt, request, self.steps.append, lambda *said: self.told.append(said))

    def said(self, **settings: Any) -> dict[str, Any]:
        """The configuration that a plan was built with."""
        plan = self.build(settings=BuildSettings(**settings)).plan
        config: dict[str, Any] = json.loads(plan.removeprefix(PLAN_MARK))["config"]
        return config


MakeYard = Callable[..., Yard]


@pytest.fixture
def yard_of(tmp_path: Path) -> MakeYard:
    """``yard_of(flavor, **options)``."""

    def make(flavor: str, **options: Any) -> Yard:
        request = BuildRequest(
            onnx=write_graph(tmp_path / "model.onnx", layers=("HALF", "FLOAT", "", "HALF")),
            input_name="images",
            sample_shape=(3, 4, 4),
            profiles=(PROFILE,),
            settings=BuildSettings(),
        )
        return Yard(bindings(flavor, FakeGpu(), **options), request)

    return make


@pytest.fixture(params=FLAVORS)
def yard(request: pytest.FixtureRequest, yard_of: MakeYard) -> Iterator[Yard]:
    """Each flavor; the builder is gone at the end and no rule was broken."""
    made = yard_of(request.param)
    yield made
    assert not made.trt.module._gpu.violations


def test_a_plan_is_built_and_described(yard: Yard) -> None:
    built = yard.build()
    assert built.plan.startswith(PLAN_MARK)
    assert built.network_layers == {"FLOAT": 1, "HALF": 2, "none": 1}
    assert built.build_ms > 0
    assert built.timing_cache is None
    assert yard.steps == [
        f"building model.onnx, step {number} of {STEPS}: Building" for number in range(1, STEPS + 1)
    ]
    yard.trt.module._gpu.assert_at_rest()


def test_every_profile_is_added_in_order(yard: Yard) -> None:
    second = BatchProfile(minimum=8, optimum=16, maximum=32)
    plan = json.loads(yard.build(profiles=(PROFILE, second)).plan.removeprefix(PLAN_MARK))
    assert plan["profiles"] == [
        [[[size, 3, 4, 4] for size in (1, 4, 8)]],
        [[[size, 3, 4, 4] for size in (8, 16, 32)]],
    ]


def test_a_graph_of_fixed_batch_has_no_profile(yard: Yard) -> None:
    assert json.loads(yard.build(profiles=()).plan.removeprefix(PLAN_MARK))["profiles"] == []


def test_the_default_is_exact_float32_and_the_backends_own_limits(yard: Yard) -> None:
    assert yard.said() == {
        "flags": [],  # TF32 is on in TensorRT unless it is cleared
        "pools": {},
        "level": 3,
        "hardware": None,
        "capabilities": [],
        "verbosity": "DETAILED",
    }


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ({"tf32": True}, "flags", ["TF32"]),
        ({"refittable": True}, "flags", ["REFIT"]),
        ({"version_compatible": True}, "flags", ["VERSION_COMPATIBLE"]),
        ({"workspace_bytes": 2**30}, "pools", {"WORKSPACE": 2**30}),
        ({"optimization_level": 0}, "level", 0),
        ({"optimization_level": 5}, "level", 5),
        ({"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS}, "hardware", "AMPERE_PLUS"),
        (
            {"hardware_compatibility": HardwareCompatibility.SAME_COMPUTE_CAPABILITY},
            "hardware",
            "SAME_COMPUTE_CAPABILITY",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_each_setting_reaches_the_builder_and_changes_nothing_else(
    yard: Yard, settings: dict[str, Any], key: str, value: object
) -> None:
    plain, found = yard.said(), yard.said(**settings)
    assert found[key] == value
    assert {**found, key: plain[key]} == plain


def test_rtx_builds_for_several_compute_capabilities_at_once(yard_of: MakeYard) -> None:
    yard = yard_of(RTX)
    named = ["12.0", "12.1", "7.5", "8.0", "8.6", "8.9"]
    assert list(compute_capabilities(yard.trt)) == [*named, "current"]
    assert yard.said(compute_capabilities=("8.9", "12.0"))["capabilities"] == ["SM89", "SM120"]


def test_rtx_builds_for_the_gpu_at_hand(yard_of: MakeYard) -> None:
    assert yard_of(RTX).said(compute_capabilities=("current",))["capabilities"] == ["CURRENT"]


def test_a_compute_capability_that_rtx_has_not_is_refused_with_those_that_it_has(yard_of: MakeYard) -> None:
    with pytest.raises(
        OptionError, match=r"can be built for 12.0, .*8.9, current; not for 9.0, 5.0\."
    ) as caught:
        yard_of(RTX).said(compute_capabilities=("8.9", "9.0", "5.0"))
    assert "name some of these" in caught.value.remedy


def test_a_compute_capability_that_does_not_take_is_an_error(yard_of: MakeYard) -> None:
    yard = yard_of(RTX)
    yard.trt.module._gpu.refusals["set_compute_capability"] = 1
    with pytest.raises(EngineBuildError, match=r"does not build for 12\.0 here"):
        yard.said(compute_capabilities=("8.9", "12.0"))


@pytest.mark.parametrize("flavor", TENSORRT)
def test_tensorrt_builds_for_the_gpu_that_is_there(yard_of: MakeYard, flavor: str) -> None:
    yard = yard_of(flavor)
    assert compute_capabilities(yard.trt) == {}
    with pytest.raises(OptionError, match=r"for the GPU that it runs on only; not for 8\.9") as caught:
        yard.said(compute_capabilities=("8.9",))
    assert "tensorrt-rtx" in caught.value.remedy


def test_a_profile_that_is_not_accepted_is_named(yard: Yard) -> None:
    yard.trt.module._gpu.refusals["add_optimization_profile"] = 0
    with pytest.raises(EngineBuildError, match=r"does not accept the profile 1:4:8 of .*model\.onnx"):
        yard.build()


def test_what_the_parser_refuses_is_told_by_node_and_operator(yard: Yard) -> None:
    errors = ((3, "/head/Einsum", "Einsum", "no such equation"), (7, "", "", "bad shape"))
    write_graph(yard.request.onnx, errors=errors)
    with pytest.raises(EngineBuildError, match=r"cannot parse .*model\.onnx") as caught:
        yard.build()
    assert caught.value.details == (
        "node 3 (/head/Einsum, operator Einsum): no such equation",
        "node 7: bad shape",
    )


def test_a_file_that_is_no_graph_is_told_in_the_parsers_words(yard: Yard) -> None:
    yard.request.onnx.write_bytes(b"no graph")
    with pytest.raises(EngineBuildError, match="cannot parse") as caught:
        yard.build()
    assert [text.partition(":")[0] for text in caught.value.details] == ["ModelImporter"]


SAYS = (("INFO", "tactics"), ("VERBOSE", "chatter"), ("WARNING", "slow"))


def test_the_builders_words_are_kept_and_its_warnings_told(yard: Yard) -> None:
    yard.trt.module.build_says = SAYS
    assert yard.build().log == (("INFO", "tactics"), ("WARNING", "slow"))
    assert yard.told == [("WARNING", "slow")]


@pytest.mark.parametrize(
    ("settings", "error", "remedy"),
    [
        ({}, "no implementation for node", "--workspace"),
        ({"version_compatible": True}, "cannot load nvinfer_lean", "lean runtime"),
        ({"compute_capabilities": ("7.5",)}, "not supported on Turing", "Leave 7.5 out"),
        ({"refittable": True}, "assertion CUDA_SUCCESS failed", "needs a GPU"),
    ],
)
def test_no_plan_is_an_error_with_the_builders_words_and_what_may_help(
    yard_of: MakeYard, settings: dict[str, Any], error: str, remedy: str
) -> None:
    yard = yard_of(RTX)
    yard.trt.module.build_says = (*SAYS, ("ERROR", error), ("INTERNAL_ERROR", "assertion"))
    yard.trt.module.build_fails = True
    with pytest.raises(EngineBuildError, match=r"could not build an engine of .*model\.onnx") as caught:
        yard.said(**settings)
    assert caught.value.details == (error, "assertion")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("flavor", TENSORRT)
def test_without_a_driver_the_builder_does_not_start_and_says_why(yard_of: MakeYard, flavor: str) -> None:
    with pytest.raises(RuntimeFailureError, match="cannot start a builder") as caught:
        yard_of(flavor, has_driver=False).build()
    assert caught.value.details == ("CUDA initialization failure with error: 35",)
    assert "doctor" in caught.value.remedy


def test_rtx_builds_without_a_driver(yard_of: MakeYard) -> None:
    assert yard_of(RTX, has_driver=False).build().plan


def test_timings_go_from_one_build_to_the_next(yard: Yard) -> None:
    first = yard.build(timing_cache=b"").timing_cache
    assert first is not None
    assert yard.trt.module._api.flavor.encode() in first
    assert yard.build(timing_cache=first).timing_cache == first


@pytest.mark.parametrize("refusal", ["another version's", "none made"])
def test_timings_of_another_version_are_refused(yard: Yard, refusal: str) -> None:
    if refusal == "none made":
        yard.trt.module._gpu.refusals["create_timing_cache"] = 0
    with pytest.raises(EngineBuildError, match="timing cache is not of") as caught:
        yard.build(timing_cache=b"fake timing cache of another version")
    assert "--timing-cache" in caught.value.remedy
    assert not yard.steps


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C as a terminal does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_cancels_the_builder_and_is_raised_when_it_has_stopped(
    yard: Yard, ctrl_c: Callable[[], None]
) -> None:
    yard.trt.module.interrupt = ctrl_c
    with pytest.raises(KeyboardInterrupt):
        yard.build()
    assert not any(thread.name == "tensorrt-build" for thread in threading.enumerate())
    assert len(yard.steps) >= STEPS
    yard.trt.module.interrupt = None
    assert yard.build().plan  # the next build is not cancelled


def test_what_breaks_inside_the_builder_is_raised_outside(yard: Yard) -> None:
    def broken() -> None:
        raise OSError("disk full")

    yard.trt.module.interrupt = broken
    with pytest.raises(OSError, match="disk full"):
        yard.build()
