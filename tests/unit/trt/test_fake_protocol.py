"""The fakes refuse what would crash, leak or corrupt memory on a GPU; a fake that forgives proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.trt.bindings import Log, TensorRT
from riformer_deploy.trt.builder import BuildRequest, build_plan
from tests.fakes.api import FLAVORS
from tests.fakes.gpu import POISON, FakeDevice, FakeGpu, ProtocolError
from tests.fakes.tensorrt import bindings
from tests.fakes.trt_building import write_graph

SHAPE = (2, 3, 4, 4)
IN_BYTES, OUT_BYTES = 2 * 48 * 4, 2 * 5 * 4


class Rig:
    """A loaded engine of two profiles with a context and buffers, driven by hand."""

    def __init__(self, trt: TensorRT, plan: bytes) -> None:
        self.trt = trt
        self.gpu: FakeGpu = trt.module._gpu
        self.log = Log(trt)
        self.runtime = trt.module.Runtime(self.log.logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        self.context = self.engine.create_execution_context()
        self.device = FakeDevice(self.gpu)
        self.images = self.device.allocate(IN_BYTES)
        self.logits = self.device.allocate(OUT_BYTES)

    def ready(self) -> None:
        """Up to, but without, the execution."""
        assert self.context.set_input_shape("images", SHAPE)
        assert self.context.set_tensor_address("images", self.images.address)
        assert self.context.set_tensor_address("logits", self.logits.address)

    def execute(self) -> None:
        assert self.context.execute_async_v3(self.device.stream)


@pytest.fixture(params=FLAVORS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    """Everything that is needed to break a rule; what is left over is not looked at."""
    trt = bindings(request.param, FakeGpu())
    sizes = BatchProfile(minimum=1, optimum=2, maximum=4), BatchProfile(minimum=4, optimum=8, maximum=8)
    build = BuildRequest(
        onnx=write_graph(tmp_path / "model.onnx"),
        input_name="images",
        sample_shape=(3, 4, 4),
        profiles=sizes,
        settings=BuildSettings(),
    )
    return Rig(trt, build_plan(trt, build, lambda _: None, lambda *_: None).plan)


def test_nothing_is_computed_before_the_stream_is_waited_for(rig: Rig) -> None:
    rig.ready()
    rig.execute()
    assert set(rig.gpu.memory[rig.logits.address]) == {POISON}
    rig.device.synchronize()
    images = rig.gpu.memory[rig.images.address].view(np.float32).reshape(SHAPE).astype(np.float64)
    logits = rig.gpu.memory[rig.logits.address].view(np.float32).reshape(2, 5)
    np.testing.assert_array_equal(logits[:, 1], (2 * images.sum(axis=(1, 2, 3))).astype(np.float32))


def _no_shape(rig: Rig) -> None:
    rig.context.set_tensor_address("images", rig.images.address)


def _no_addresses(rig: Rig) -> None:
    rig.context.set_input_shape("images", SHAPE)
    rig.context.set_tensor_address("images", rig.images.address)
    rig.execute()


def _another_shape(rig: Rig) -> None:
    rig.ready()
    rig.context.set_input_shape("images", (1, 3, 4, 4))
    rig.execute()


def _another_profile(rig: Rig) -> None:
    rig.ready()
    rig.context.set_optimization_profile_async(1, rig.device.stream)
    rig.execute()


def _small_buffer(rig: Rig) -> None:
    rig.context.set_input_shape("images", (3, 3, 4, 4))
    rig.context.set_tensor_address("images", rig.images.address)


def _freed_buffer(rig: Rig) -> None:
    rig.ready()
    rig.device.free(rig.images)
    rig.execute()
    rig.device.synchronize()


def _freed_early(rig: Rig) -> None:
    rig.ready()
    rig.execute()
    rig.device.free(rig.logits)


def _host_freed_early(rig: Rig) -> None:
    host = rig.device.allocate_host(OUT_BYTES)
    rig.device.to_host(host, rig.logits)
    rig.device.free_host(host)


def _freed_twice(rig: Rig) -> None:
    rig.device.free(rig.logits)
    rig.device.free(rig.logits)


def _second_stream(rig: Rig) -> None:
    rig.ready()
    rig.execute()
    rig.context.execute_async_v3(FakeDevice(rig.gpu).stream)


def _no_stream(rig: Rig) -> None:
    rig.ready()
    rig.context.execute_async_v3(0)


def _cold_capture(rig: Rig) -> None:
    rig.ready()
    rig.device.capture(rig.execute)


def _wait_in_capture(rig: Rig) -> None:
    rig.device.capture(rig.device.synchronize)


def _allocate_in_capture(rig: Rig) -> None:
    def work() -> None:
        rig.device.allocate(1)

    rig.device.capture(work)


def _capture_behind_work(rig: Rig) -> None:
    rig.ready()
    rig.execute()
    rig.device.capture(lambda: None)


def _graph(rig: Rig) -> Any:
    rig.ready()
    rig.execute()
    rig.device.synchronize()
    return rig.device.capture(rig.execute)


def _graph_of_freed_memory(rig: Rig) -> None:
    graph = _graph(rig)
    rig.device.free(rig.images)
    rig.device.launch(graph)
    rig.device.synchronize()


def _graph_freed_early(rig: Rig) -> None:
    graph = _graph(rig)
    rig.device.launch(graph)
    rig.device.free_graph(graph)


def _graph_freed_and_launched(rig: Rig) -> None:
    graph = _graph(rig)
    rig.device.free_graph(graph)
    rig.device.launch(graph)


def _time_of_nothing(rig: Rig) -> None:
    rig.device.elapsed_ms(rig.device.event(), rig.device.event())


def _stream_with_buffers(rig: Rig) -> None:
    rig.device.close()


def _stream_with_context(rig: Rig) -> None:
    rig.ready()
    rig.execute()
    rig.device.synchronize()
    rig.device.free(rig.images)
    rig.device.free(rig.logits)
    rig.device.close()


def _weakly_typed(rig: Rig) -> None:
    rig.trt.module.Builder(rig.log.logger).create_network(0)


RULES: list[Callable[[Rig], object]] = [
    *(_no_shape, _no_addresses, _another_shape, _another_profile, _small_buffer, _freed_buffer),
    *(_freed_early, _host_freed_early, _freed_twice, _second_stream, _no_stream, _cold_capture),
    *(_wait_in_capture, _allocate_in_capture, _capture_behind_work, _graph_of_freed_memory),
    *(_graph_freed_early, _graph_freed_and_launched, _time_of_nothing, _stream_with_buffers),
    *(_stream_with_context, _weakly_typed),
]


@pytest.mark.parametrize("breach", RULES, ids=lambda breach: breach.__name__.strip("_"))
def test_a_broken_rule_is_raised_and_remembered(rig: Rig, breach: Callable[[Rig], object]) -> None:
    with pytest.raises(ProtocolError) as caught:
        breach(rig)
    assert rig.gpu.violations == [str(caught.value)]
    with pytest.raises(AssertionError):
        rig.gpu.assert_at_rest()


@pytest.mark.parametrize("early", ["engine", "runtime"])
def test_what_is_destroyed_before_its_parts_is_remembered(rig: Rig, early: str) -> None:
    delattr(rig, early)
    parts = {"engine": "context", "runtime": "engine"}
    assert rig.gpu.violations == [f"the last {early} is destroyed before every {parts[early]}"]


def test_a_context_that_is_destroyed_while_it_runs_is_remembered(rig: Rig) -> None:
    rig.ready()
    rig.execute()
    del rig.context
    assert rig.gpu.violations == ["a context is destroyed while its inference is pending"]


def test_what_is_left_is_named(rig: Rig) -> None:
    with pytest.raises(AssertionError, match="'context': 1, 'stream': 1, 'device buffer': 2"):
        rig.gpu.assert_at_rest()


def test_a_graph_computes_at_each_launch_at_the_addresses_of_its_capture(rig: Rig) -> None:
    graph = _graph(rig)
    elsewhere = rig.device.allocate(OUT_BYTES)
    rig.context.set_tensor_address("logits", elsewhere.address)
    rig.gpu.memory[rig.images.address].view(np.float32)[...] = 1
    rig.device.launch(graph)
    assert rig.gpu.memory[rig.logits.address].view(np.float32)[0] != 48
    rig.device.synchronize()
    assert rig.gpu.memory[rig.logits.address].view(np.float32)[0] == 48
    assert set(rig.gpu.memory[elsewhere.address]) == {POISON}


@pytest.mark.parametrize(
    ("shape", "profile", "taken"),
    [(1, 0, True), (4, 0, True), (5, 0, False), (4, 1, True), (8, 1, True), (3, 1, False), (9, 1, False)],
)
def test_shapes_are_taken_within_the_selected_profile_only(
    rig: Rig, shape: int, profile: int, *, taken: bool
) -> None:
    assert rig.context.set_optimization_profile_async(profile, rig.device.stream)
    assert rig.context.set_input_shape("images", (shape, 3, 4, 4)) is taken
    assert rig.context.set_input_shape("images", (shape, 3, 4, 5)) is False
    assert not rig.context.set_optimization_profile_async(2, rig.device.stream)


def test_the_first_logger_is_everybodys_and_must_outlive_them(rig: Rig) -> None:
    heard: list[str] = []

    class Ears(rig.trt.module.ILogger):  # type: ignore[name-defined, misc]  # the fake's
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            heard.append(f"{severity.name} {msg}")

    ears = Ears()
    second = rig.trt.module.Runtime(ears)
    assert second.deserialize_cuda_engine(b"no plan") is None
    assert rig.log.errors == ["magic tag does not match"]
    assert "differs from the one already registered" in rig.log.lines[-2][1]
    del rig.context, rig.engine, rig.runtime, second
    first = rig.trt.module.Runtime(ears)
    assert first.deserialize_cuda_engine(b"no plan") is None
    assert heard == ["ERROR magic tag does not match"]
    del ears
    with pytest.raises(ProtocolError, match="a logger that is gone"):
        first.deserialize_cuda_engine(b"no plan")


def test_a_call_that_shall_fail_fails_once(rig: Rig) -> None:
    rig.gpu.refusals["allocate"] = 1
    rig.device.allocate(1)
    with pytest.raises(RuntimeFailureError, match="allocate failed"):
        rig.device.allocate(1)
    rig.device.allocate(1)


NAMES: list[tuple[str, str, Callable[[Rig], object]]] = [
    ("10.16 11.4", "has no ComputeCapability", lambda rig: rig.trt.module.ComputeCapability),
    ("11.4 1.7", "FP16", lambda rig: rig.trt.module.BuilderFlag.FP16),
    ("11.4 1.7", "has no device_memory_size", lambda rig: rig.engine.device_memory_size),
    ("10.16 11.4", "has no get_engine_validity", lambda rig: rig.runtime.get_engine_validity(b"")),
    ("10.16 11.4", "has no get_engine_validity", lambda rig: rig.trt.module.Runtime.get_engine_validity),
    ("10.16 11.4 1.7", "has no nonsense", lambda rig: setattr(rig.context, "nonsense", 1)),
    ("10.16 11.4 1.7", "has no nonsense", lambda rig: rig.trt.module.nonsense),
]


@pytest.mark.parametrize(("flavors", "said", "use"), NAMES, ids=[said for _, said, _ in NAMES])
def test_names_that_a_flavor_lacks_are_refused(
    rig: Rig, flavors: str, said: str, use: Callable[[Rig], object]
) -> None:
    if any(rig.trt.module._api.flavor.endswith(f"-{number}") for number in flavors.split()):
        with pytest.raises(AttributeError, match=said):
            use(rig)
    else:
        try:
            use(rig)
        except NotImplementedError as err:  # the flavor has it, the fake does not do it
            assert "the fake" in str(err)  # noqa: PT017


CALLS: list[Callable[[Rig], object]] = [
    lambda rig: rig.context.execute_async_v3(),
    lambda rig: rig.context.execute_async_v3(rig.device.stream, 1),
    lambda rig: rig.context.execute_async_v3(stream=rig.device.stream),
    lambda rig: rig.context.execute_async_v3("0"),
    lambda rig: rig.context.set_input_shape("images", np.array(SHAPE)),
    lambda rig: rig.context.set_input_shape(0, SHAPE),
    lambda rig: rig.engine.create_execution_context(1),
    lambda rig: rig.runtime.deserialize_cuda_engine("text"),
    lambda rig: rig.trt.module.Runtime(),
    lambda rig: rig.trt.module.Runtime(print),
    lambda rig: rig.trt.module.IExecutionContext(),
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_arguments_that_pybind11_would_refuse_are_a_type_error(
    rig: Rig, call: Callable[[Rig], object]
) -> None:
    with pytest.raises(TypeError):
        call(rig)


def test_keywords_are_the_bindings_own(rig: Rig) -> None:
    assert rig.context.set_input_shape(name="images", shape=SHAPE)
    rig.ready()
    assert rig.context.execute_async_v3(stream_handle=rig.device.stream)
