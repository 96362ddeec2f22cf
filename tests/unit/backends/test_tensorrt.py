from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riformer_deploy.backends.timing import OCCUPYING_REPEATS
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.trt.runtime_cache import RuntimeCache
from tests.engine_bench import RTX, TENSORRT, Bench, MakeBench, expected, images_of
from tests.fakes.api import FLAVORS
from tests.fakes.gpu import CLEAR_MS, COMPUTE_MS, COPY_TO_DEVICE_MS, COPY_TO_HOST_MS, FakeGpu
from tests.fakes.tensorrt import bindings

SHA256 = "5e" * 32


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_every_batch_gives_the_plans_outputs_however_it_is_launched(bench: Bench, *, graphs: bool) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    for batch in (1, 3, 8, 2, 3, 5, 6, 1, 8):
        images = images_of(batch, seed=batch)
        found = runtime.run(images)
        assert list(found) == ["logits"]
        np.testing.assert_array_equal(found["logits"], expected(images))
    runtime.close()
    bench.gpu.assert_at_rest()


def test_answers_of_earlier_calls_are_the_callers_own(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    first, second = images_of(2, seed=1), images_of(2, seed=2)
    found = runtime.run(first)["logits"]
    runtime.run(second)
    np.testing.assert_array_equal(found, expected(first))
    runtime.close()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_buffers_are_allocated_once_per_shape_and_many_calls_add_nothing(
    bench: Bench, *, graphs: bool
) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    for batch in (1, 2):
        runtime.run(images_of(batch))
        runtime.device_times(images_of(batch))
    before, made = dict(bench.gpu.live), dict(bench.gpu.made)
    for number in range(200):
        runtime.run(images_of(1 + number % 2))
        runtime.device_times(images_of(1 + number % 2))
    assert dict(bench.gpu.live) == before
    assert dict(bench.gpu.made) == made
    assert before["host buffer"] == 4  # two shapes, input and output
    assert before["device buffer"] == 4 + 1  # and what keeps the GPU busy before kernels are timed
    assert before["context"] == 2
    runtime.close()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_only_the_last_shapes_stay_prepared(tensorrt: Bench, *, graphs: bool) -> None:
    runtime, live = tensorrt.start(cuda_graphs=graphs), tensorrt.gpu.live
    for batch in range(1, 9):
        runtime.run(images_of(batch))
        assert live["context"] == min(batch, 4)
        assert live["device buffer"] == live["host buffer"] == 2 * min(batch, 4)
        assert live["graph"] == (min(batch, 4) if graphs else 0)
    made = tensorrt.gpu.made["context"]
    runtime.run(images_of(5))  # the oldest of 5 to 8, and now the youngest
    assert tensorrt.gpu.made["context"] == made
    runtime.run(images_of(1))  # puts out 6
    runtime.run(images_of(5))
    assert tensorrt.gpu.made["context"] == made + 1
    runtime.run(images_of(6))
    assert tensorrt.gpu.made["context"] == made + 2
    runtime.close()


def test_a_batch_outside_the_profiles_is_an_error_that_says_which_there_are(bench: Bench) -> None:
    runtime = bench.start()
    with pytest.raises(RuntimeFailureError, match=r"does not take batch 9: its profiles are 1:4:8") as caught:
        runtime.run(images_of(9))
    assert "--profile that holds 9" in caught.value.remedy
    assert not bench.gpu.live["context"]
    np.testing.assert_array_equal(runtime.run(images_of(8))["logits"], expected(images_of(8)))
    runtime.close()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 4, 5), np.float32),
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((3, 4, 4), np.float32),
        np.zeros((1, 3, 4, 4), np.float64),
        np.zeros((1, 3, 4, 4), np.uint8),
    ],
    ids=["wide", "channels last", "no batch", "float64", "uint8"],
)
def test_images_that_the_engine_does_not_take_are_an_error_that_says_what_it_takes(
    tensorrt: Bench, images: Any
) -> None:
    runtime = tensorrt.start()
    expected_text = r"takes float32 \('N', 3, 4, 4\), got "
    with pytest.raises(RuntimeFailureError, match=expected_text):
        runtime.run(images)
    assert not tensorrt.gpu.live["device buffer"]
    runtime.close()


@pytest.mark.parametrize(("dtype", "type_"), [("HALF", np.float16), ("UINT8", np.uint8)])
def test_the_input_has_the_engines_type(bench_of: MakeBench, dtype: str, type_: Any) -> None:
    runtime = bench_of(TENSORRT, dtype=dtype).start()
    images = (10 * images_of(2)).astype(type_)
    np.testing.assert_array_equal(runtime.run(images)["logits"], expected(images))
    with pytest.raises(RuntimeFailureError, match="takes"):
        runtime.run(images_of(2))
    runtime.close()


def test_a_type_that_numpy_has_not_is_an_error_when_the_engine_is_loaded(bench_of: MakeBench) -> None:
    bench = bench_of(TENSORRT, dtype="BF16")
    with pytest.raises(RuntimeFailureError, match="a tensor images of type BF16"):
        bench.start()
    bench.gpu.assert_at_rest()


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_static_engine_takes_its_own_batch_and_no_other(bench_of: MakeBench, flavor: str) -> None:
    bench = bench_of(flavor, profiles=(), shape=(2, 3, 4, 4))
    bench.metadata = replace(bench.metadata, profiles=(BatchProfile(minimum=2, optimum=2, maximum=2),))
    runtime = bench.start()
    np.testing.assert_array_equal(runtime.run(images_of(2))["logits"], expected(images_of(2)))
    with pytest.raises(RuntimeFailureError, match="does not take batch 1"):
        runtime.run(images_of(1))
    runtime.close()


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_a_plan_may_bring_its_runtime_only_where_the_engine_metadata_says_so(
    bench_of: MakeBench, flavor: str, *, graphs: bool
) -> None:
    bench = bench_of(flavor, settings=BuildSettings(version_compatible=True))
    runtime = bench.start(cuda_graphs=graphs)
    runtime.run(images_of(1))
    runtime.close()
    bench.metadata = replace(bench.metadata, settings=BuildSettings())
    with pytest.raises(RuntimeFailureError, match="could not load the plan") as caught:
        bench.start(cuda_graphs=graphs)
    assert caught.value.details == ("the plan brings a runtime, and host code is not allowed",)


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_of_several_profiles_the_one_that_is_tuned_nearest_runs(
    bench_of: MakeBench, monkeypatch: pytest.MonkeyPatch, flavor: str, *, graphs: bool
) -> None:
    profiles = (
        BatchProfile(minimum=1, optimum=1, maximum=1),
        BatchProfile(minimum=1, optimum=8, maximum=32),
        BatchProfile(minimum=16, optimum=64, maximum=64),
    )
    bench = bench_of(flavor, profiles=profiles)
    selected: list[int] = []
    select = bench.module.IExecutionContext.set_optimization_profile_async

    def spy(self: Any, number: int, stream: int) -> bool:
        selected.append(number)
        return bool(select(self, number, stream))

    monkeypatch.setattr(bench.module.IExecutionContext, "set_optimization_profile_async", spy)
    runtime = bench.start(cuda_graphs=graphs)
    for batch in (1, 2, 32, 40):
        np.testing.assert_array_equal(runtime.run(images_of(batch))["logits"], expected(images_of(batch)))
    assert selected == [1, 1, 2]  # the first is every context's own from the start
    runtime.close()


def test_tensorrt_is_captured_by_us_once_per_shape(tensorrt: Bench) -> None:
    runtime = tensorrt.start(cuda_graphs=True)
    for batch in (1, 2, 1, 2):
        runtime.run(images_of(batch))
    assert tensorrt.gpu.made["graph"] == 2
    assert set(tensorrt.module.graph_strategies) == {"DISABLED"}
    runtime.close()


def test_rtx_captures_itself(rtx: Bench) -> None:
    runtime = rtx.start(cuda_graphs=True)
    runtime.run(images_of(1))
    assert rtx.gpu.made["graph"] == 0
    assert rtx.module.graph_strategies == ["WHOLE_GRAPH_CAPTURE"]
    runtime.close()
    runtime = rtx.start()
    runtime.run(images_of(1))
    assert rtx.module.graph_strategies[1:] == ["DISABLED"]
    runtime.close()


def test_rtx_compiles_kernels_before_they_run_and_not_behind_them(rtx: Bench) -> None:
    runtime = rtx.start()
    runtime.run(images_of(1))
    assert rtx.module.kernel_strategies == ["EAGER"]
    runtime.close()


def test_a_plan_that_was_changed_since_preflight_is_not_loaded(tensorrt: Bench) -> None:
    sha256 = hashlib.sha256(tensorrt.plan.read_bytes()).hexdigest()
    tensorrt.start(sha256=sha256).close()
    tensorrt.plan.write_bytes(tensorrt.plan.read_bytes() + b"x")
    with pytest.raises(RuntimeFailureError, match="was changed while it was being used"):
        tensorrt.start(sha256=sha256)


def test_a_layer_that_captures_no_graphs_is_refused_where_we_would_have_to(tensorrt: Bench) -> None:
    with pytest.raises(RuntimeFailureError, match="captures none") as caught:
        tensorrt.start(cuda_graphs=True, captures=False)
    assert "cuda-python" in caught.value.remedy
    tensorrt.gpu.assert_at_rest()


def test_a_layer_that_captures_no_graphs_is_good_enough_for_rtx(rtx: Bench) -> None:
    runtime = rtx.start(cuda_graphs=True, captures=False)
    runtime.run(images_of(1))
    runtime.close()


@pytest.fixture
def kept(tmp_path: Path) -> RuntimeCache:
    """Where an engine's kernels are kept."""
    return RuntimeCache(path=tmp_path / ".cache", engine_sha256=SHA256)


def test_kernels_that_were_compiled_are_kept_for_the_next_run(rtx: Bench, kept: RuntimeCache) -> None:
    for batches, compiled in (((1, 2), 2), ((1, 2), 2), ((2, 3), 3), ((1, 2, 3), 3)):
        runtime = rtx.start(kept=kept)
        for batch in batches:
            runtime.run(images_of(batch))
        runtime.close()
        assert len(rtx.module.compiled) == compiled
    rtx.gpu.assert_at_rest()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:70] + b"?" + content[71:],
        lambda _: b"",
    ],
    ids=["cut", "within its header", "another engine's", "altered", "empty"],
)
def test_damaged_kernels_never_reach_tensorrt_and_are_replaced(
    rtx: Bench, kept: RuntimeCache, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    def run() -> None:
        runtime = rtx.start(kept=kept)
        runtime.run(images_of(1))
        runtime.close()

    run()
    good = kept.path.read_bytes()
    kept.path.write_bytes(damage(good))
    seen: list[bytes] = []
    deserialize = rtx.module.IRuntimeCache.deserialize

    def spy(self: Any, content: Any) -> bool:
        seen.append(bytes(content))
        return bool(deserialize(self, content))

    monkeypatch.setattr(rtx.module.IRuntimeCache, "deserialize", spy)
    run()
    assert not seen
    assert len(rtx.module.compiled) == 2
    assert kept.path.read_bytes() == good
    run()
    assert len(seen) == 1
    assert len(rtx.module.compiled) == 2


def test_kernels_of_another_version_are_refused_by_tensorrt_and_compiled_anew(
    rtx: Bench, kept: RuntimeCache
) -> None:
    kept.write(b"fake runtime cache of tensorrt_rtx-0.9\n[]")
    runtime = rtx.start(kept=kept)
    runtime.run(images_of(1))
    runtime.close()
    assert len(rtx.module.compiled) == 1
    assert b"-1.7" in kept.path.read_bytes()


@pytest.mark.parametrize("call", ["IRuntimeCache.serialize", "set_runtime_cache"])
def test_kernels_that_cannot_be_had_are_no_failure(rtx: Bench, kept: RuntimeCache, call: str) -> None:
    rtx.gpu.refusals[call] = 0
    runtime = rtx.start(kept=kept)
    np.testing.assert_array_equal(runtime.run(images_of(1))["logits"], expected(images_of(1)))
    runtime.close()
    rtx.gpu.assert_at_rest()
    assert not kept.path.exists()


def test_kernels_that_cannot_be_written_are_no_failure(rtx: Bench, tmp_path: Path) -> None:
    runtime = rtx.start(kept=RuntimeCache(path=tmp_path / "absent" / ".cache", engine_sha256=SHA256))
    runtime.run(images_of(1))
    runtime.close()
    rtx.gpu.assert_at_rest()


def test_kernels_are_not_kept_where_the_gpu_failed(rtx: Bench, kept: RuntimeCache) -> None:
    runtime = rtx.start(kept=kept)
    runtime.run(images_of(1))
    rtx.gpu.refusals["synchronize"] = 0
    with pytest.raises(RuntimeFailureError, match="synchronize failed"):
        runtime.close()
    rtx.gpu.assert_at_rest()
    assert not kept.path.exists()


def test_tensorrt_keeps_no_kernels(tensorrt: Bench, kept: RuntimeCache) -> None:
    runtime = tensorrt.start(kept=kept)
    runtime.run(images_of(1))
    runtime.close()
    assert not kept.path.exists()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_device_times_are_the_streams(tensorrt: Bench, *, graphs: bool) -> None:
    runtime = tensorrt.start(cuda_graphs=graphs)
    for _ in range(3):
        times = runtime.device_times(images_of(2))
        assert (times.to_device_ms, times.compute_ms, times.to_host_ms) == (
            COPY_TO_DEVICE_MS,
            COMPUTE_MS,
            COPY_TO_HOST_MS,
        )
    runtime.close()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_kernels_are_launched_behind_other_work_where_they_are_timed(
    tensorrt: Bench, *, graphs: bool
) -> None:
    runtime, log = tensorrt.start(cuda_graphs=graphs), tensorrt.gpu.log
    runtime.run(images_of(2))
    log.clear()
    runtime.device_times(images_of(2))
    # once before the images are sent, so that this copy, too, is launched while the device is busy
    assert log == ["clear"] * (1 + OCCUPYING_REPEATS) + ["launch" if graphs else "execute"]
    log.clear()
    runtime.run(images_of(2))
    assert log == ["launch" if graphs else "execute"]
    runtime.close()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_inferences_back_to_back_follow_an_untimed_one(tensorrt: Bench, *, graphs: bool) -> None:
    runtime, log = tensorrt.start(cuda_graphs=graphs), tensorrt.gpu.log
    runtime.run(images_of(2))
    log.clear()
    assert runtime.warm_time(images_of(2), 3).compute_ms == COMPUTE_MS
    assert log == ["clear"] * OCCUPYING_REPEATS + ["launch" if graphs else "execute"] * 4
    np.testing.assert_array_equal(runtime.run(images_of(2))["logits"], expected(images_of(2)))
    runtime.close()


def test_a_launch_that_takes_longer_than_the_filling_is_hidden_behind_more_of_it(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    tensorrt.gpu.launch_ms = COPY_TO_DEVICE_MS + (1 + OCCUPYING_REPEATS) * CLEAR_MS
    times = runtime.device_times(images_of(2))
    assert (times.compute_ms, times.launch_hidden) == (COMPUTE_MS, True)
    assert tensorrt.gpu.log.count("clear") == 2 + 3 * OCCUPYING_REPEATS
    runtime.close()


def test_a_tap_is_refused(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    with pytest.raises(RuntimeFailureError, match=r"no activations of backbone.network.0.0"):
        runtime.tap(images_of(1), ["backbone.network.0.0"])
    runtime.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is freed is freed at once, not when the garbage is collected."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_closing_frees_everything_at_once_and_twice_is_as_good(bench: Bench, *, graphs: bool) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    for batch in (1, 2):
        runtime.run(images_of(batch))
    runtime.close()
    bench.gpu.assert_at_rest()
    runtime.close()
    for use in (runtime.run, runtime.device_times):
        with pytest.raises(RuntimeFailureError, match="was closed"):
            use(images_of(1))


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("call", "after"), [("deserialize_cuda_engine", 0), ("event", 0), ("event", 1), ("event", 4)]
)
def test_an_engine_that_cannot_start_leaves_nothing(bench: Bench, call: str, after: int) -> None:
    bench.gpu.refusals[call] = after
    with pytest.raises(RuntimeFailureError) as caught:
        bench.start()
    bench.gpu.assert_at_rest()  # with the traceback still at hand
    assert call == "event" or caught.value.details == ("out of memory",)


@pytest.mark.usefixtures("no_collection")
def test_a_plan_that_is_gone_foreign_or_no_plan_leaves_nothing(bench: Bench) -> None:
    content = bench.plan.read_bytes()
    for wrong in (b"", b"no plan", content.replace(b"-1", b"-0")):
        bench.plan.write_bytes(wrong)
        with pytest.raises(RuntimeFailureError, match="could not load the plan") as caught:
            bench.start()
        assert caught.value.details == ("magic tag does not match",)
        bench.gpu.assert_at_rest()
    bench.plan.unlink()
    with pytest.raises(RuntimeFailureError, match="cannot be read") as caught:
        bench.start()
    bench.gpu.assert_at_rest()


@pytest.mark.usefixtures("no_collection")
def test_a_runtime_without_a_driver_says_so(bench: Bench) -> None:
    bench.trt.module._has_driver = False
    with pytest.raises(RuntimeFailureError, match="could not start") as caught:
        bench.start()
    assert caught.value.details == ("CUDA initialization failure with error: 35",)
    bench.gpu.assert_at_rest()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("create_execution_context", 0),
        ("allocate", 0),
        ("allocate", 1),
        ("allocate_host", 0),
        ("allocate_host", 1),
        ("set_tensor_address", 0),
        ("set_tensor_address", 1),
        ("execute_async_v3", 0),
        ("to_device", 0),
        ("to_host", 0),
        ("clear", 0),
        ("record", 3),
        ("is_done", 0),
    ],
)
def test_a_call_that_fails_half_way_leaves_nothing_and_the_next_one_works(
    bench: Bench, call: str, after: int, *, graphs: bool
) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    idle = dict(bench.gpu.live)
    bench.gpu.refusals[call] = after
    with pytest.raises(RuntimeFailureError):
        runtime.device_times(images_of(2))
    assert not bench.gpu.refusals
    if call in ("create_execution_context", "allocate", "allocate_host", "set_tensor_address"):
        assert dict(bench.gpu.live) == idle
    np.testing.assert_array_equal(runtime.run(images_of(2))["logits"], expected(images_of(2)))
    runtime.close()
    bench.gpu.assert_at_rest()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])
def test_a_shape_is_not_put_out_while_its_last_failed_call_still_runs(
    tensorrt: Bench, *, graphs: bool
) -> None:
    runtime = tensorrt.start(cuda_graphs=graphs)
    for batch in (1, 2, 3, 4):
        tensorrt.gpu.refusals["to_host"] = 0
        with pytest.raises(RuntimeFailureError, match="to_host failed"):
            runtime.run(images_of(batch))
    np.testing.assert_array_equal(runtime.run(images_of(5))["logits"], expected(images_of(5)))
    runtime.close()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("call", "after"),
    [("execute_async_v3", 0), ("execute_async_v3", 1), ("capture", 0), ("end of capture", 0)],
)
def test_a_capture_that_fails_leaves_nothing(tensorrt: Bench, call: str, after: int) -> None:
    runtime = tensorrt.start(cuda_graphs=True)
    idle = dict(tensorrt.gpu.live)
    tensorrt.gpu.refusals[call] = after
    with pytest.raises(RuntimeFailureError):
        runtime.run(images_of(2))
    assert dict(tensorrt.gpu.live) == idle
    np.testing.assert_array_equal(runtime.run(images_of(2))["logits"], expected(images_of(2)))
    runtime.close()
    tensorrt.gpu.assert_at_rest()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("call", ["synchronize", "free_graph", "free", "free_host", "free_event"])
def test_what_cannot_be_freed_does_not_keep_the_rest_alive(tensorrt: Bench, call: str) -> None:
    runtime = tensorrt.start(cuda_graphs=True)
    runtime.run(images_of(2))
    tensorrt.gpu.refusals[call] = 0
    with pytest.raises((RuntimeFailureError, AssertionError)):
        runtime.close()
    kinds = {
        "free_graph": "graph",
        "free": "device buffer",
        "free_host": "host buffer",
        "free_event": "event",
    }
    left = {kind: 1 for name, kind in kinds.items() if name == call}
    if left and call != "free_host":  # the fake's stream is not destroyed before what it was used for
        left["stream"] = 1
    assert dict(tensorrt.gpu.live) == left
    tensorrt.gpu.live.clear()
    tensorrt.gpu.violations.clear()
    runtime.close()


def test_two_engines_at_once_each_say_their_own_errors_and_either_may_go_first(bench: Bench) -> None:
    first, second = bench.start(), bench.start()
    first.run(images_of(1))
    second.run(images_of(1))
    first.close()
    bench.gpu.refusals["execute_async_v3"] = 0
    with pytest.raises(RuntimeFailureError, match="could not run") as caught:
        second.run(images_of(1))
    assert caught.value.details == ("no kernel image is available",)
    second.close()
    bench.gpu.assert_at_rest()


def test_the_backend_of_a_fake_is_that_of_its_flavor() -> None:
    found = {flavor: bindings(flavor, FakeGpu()).backend for flavor in FLAVORS}
    assert [*found.values()].count(TensorRTFlavor.TENSORRT_RTX) == 1
    assert found[RTX] is TensorRTFlavor.TENSORRT_RTX
