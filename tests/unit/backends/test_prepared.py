from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.common.errors import RuntimeFailureError
from tests.engine_bench import Bench, MakeBench, expected, images_of
from tests.fakes.gpu import COMPUTE_MS

GRAPHS = pytest.mark.parametrize("graphs", [False, True], ids=["plain", "CUDA graph"])


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is freed is freed at once, not when the garbage is collected."""
    gc.disable()
    yield
    gc.enable()


def test_rtx_runs_a_shape_three_times_before_its_outputs_count(rtx: Bench) -> None:
    runtime, log = rtx.start(cuda_graphs=True), rtx.gpu.log
    for batch in (1, 2):
        log.clear()
        np.testing.assert_array_equal(runtime.run(images_of(batch))["logits"], expected(images_of(batch)))
        assert log == ["execute", "capture", "replay", "replay"]  # the last one is the answer
        log.clear()
        runtime.run(images_of(batch))
        assert log == ["replay"]
    assert runtime.device_times(images_of(2)).compute_ms == COMPUTE_MS
    assert log[-1] == "replay"
    assert runtime.graph_states == {1: GraphState.CAPTURABLE, 2: GraphState.CAPTURABLE}
    runtime.close()


def test_a_shape_that_rtx_cannot_capture_is_told_and_still_runs(
    rtx: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    rtx.module.capturable = lambda shape: shape[0] != 2
    runtime, log = rtx.start(cuda_graphs=True), rtx.gpu.log
    with caplog.at_level(logging.WARNING):
        for batch in (1, 2, 2):
            log.clear()
            np.testing.assert_array_equal(runtime.run(images_of(batch))["logits"], expected(images_of(batch)))
    assert log == ["execute"]
    assert runtime.graph_states == {1: GraphState.CAPTURABLE, 2: GraphState.NOT_CAPTURABLE}
    (said,) = caplog.messages
    assert said == f"{rtx.plan}, batch 2: no CUDA graph can be captured; it runs plain"
    runtime.close()


def test_what_we_captured_ourselves_is_known_to_be_a_graph(tensorrt: Bench) -> None:
    runtime = tensorrt.start(cuda_graphs=True)
    for batch in range(1, 7):
        runtime.run(images_of(batch))
    assert runtime.graph_states == dict.fromkeys(range(1, 7), GraphState.CAPTURED)  # evicted ones, too
    runtime.close()


def test_nothing_is_said_of_graphs_that_nobody_asked_for(bench: Bench) -> None:
    bench.module.capturable = lambda _shape: False
    runtime, log = bench.start(), bench.gpu.log
    runtime.run(images_of(1))
    assert log == ["execute"]
    assert runtime.graph_states == {}
    runtime.close()


@GRAPHS
def test_contexts_tell_nvtx_nothing(bench: Bench, *, graphs: bool) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    runtime.run(images_of(1))
    assert bench.module.nvtx_verbosities == {"NONE"}
    runtime.close()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_run_that_fails_before_the_first_replay_leaves_nothing(rtx: Bench, after: int) -> None:
    runtime = rtx.start(cuda_graphs=True)
    idle = dict(rtx.gpu.live)
    rtx.gpu.refusals["execute_async_v3"] = after
    with pytest.raises(RuntimeFailureError):
        runtime.run(images_of(2))
    assert dict(rtx.gpu.live) == idle
    assert runtime.graph_states == {}
    np.testing.assert_array_equal(runtime.run(images_of(2))["logits"], expected(images_of(2)))
    runtime.close()


@GRAPHS
def test_images_that_are_written_into_the_view_are_what_is_run(bench: Bench, *, graphs: bool) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    view = runtime.input_view(3)
    assert (view.shape, view.dtype, view.flags.writeable) == ((3, 3, 4, 4), np.dtype(np.float32), True)
    assert view.flags.c_contiguous
    for seed in range(3):
        view[...] = images_of(3, seed=seed)
        np.testing.assert_array_equal(runtime.run_filled(3)["logits"], expected(images_of(3, seed=seed)))
    assert np.shares_memory(view, runtime.input_view(3))
    del view
    runtime.close()


@pytest.mark.parametrize(("dtype", "expected_dtype"), [("HALF", np.float16), ("UINT8", np.uint8)])
def test_the_view_has_the_type_that_the_engine_takes(
    bench_of: MakeBench, dtype: str, expected_dtype: type
) -> None:
    runtime = bench_of("tensorrt_rtx-1.7", dtype=dtype).start()
    view = runtime.input_view(2)
    assert view.dtype == expected_dtype
    view[...] = 1
    np.testing.assert_array_equal(
        runtime.run_filled(2)["logits"], expected(np.ones((2, 3, 4, 4), expected_dtype))
    )
    del view
    runtime.close()


def test_outputs_are_the_callers_own_or_views_that_the_next_call_overwrites(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    view = runtime.input_view(2)
    view[...] = first = images_of(2, seed=1)
    own = runtime.run_filled(2)["logits"]
    lent = runtime.run_filled(2, copy=False)["logits"]
    np.testing.assert_array_equal(lent, expected(first))
    view[...] = second = images_of(2, seed=2)
    runtime.run_filled(2)
    np.testing.assert_array_equal(own, expected(first))
    np.testing.assert_array_equal(lent, expected(second))
    del view, lent
    runtime.close()


def test_a_shape_stays_prepared_while_a_view_of_it_or_of_a_part_of_it_is_held(tensorrt: Bench) -> None:
    runtime, live = tensorrt.start(), tensorrt.gpu.live
    image = runtime.input_view(2)[1]
    image[...] = 0
    for batch in (1, 3, 4, 5, 6, 7):
        runtime.run(images_of(batch))
    assert live["context"] == 4
    whole = runtime.input_view(2)
    assert np.shares_memory(whole, image)
    whole[...] = images_of(2)
    np.testing.assert_array_equal(runtime.run_filled(2)["logits"], expected(images_of(2)))
    del whole, image
    for batch in (1, 3, 4, 5):
        runtime.run(images_of(batch))
    with pytest.raises(RuntimeFailureError, match="no view of its input is held"):
        runtime.run_filled(2)
    runtime.close()


def test_more_views_than_shapes_are_kept_are_all_good(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    views = {batch: runtime.input_view(batch) for batch in range(1, 9)}
    for batch, view in views.items():
        view[...] = images_of(batch, seed=batch)
    for batch in views:
        found = runtime.run_filled(batch)["logits"]
        np.testing.assert_array_equal(found, expected(images_of(batch, seed=batch)))
    assert tensorrt.gpu.live["context"] == 8
    views.clear()
    del view
    runtime.run(images_of(1))
    runtime.input_view(2)
    runtime.close()


def test_shapes_kept_for_their_views_go_when_these_are_gone(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    views = [runtime.input_view(batch) for batch in range(1, 8)]
    views.clear()
    runtime.run(images_of(8))
    assert tensorrt.gpu.live["context"] == 4
    runtime.close()


def test_nothing_is_run_that_nobody_can_have_filled(tensorrt: Bench) -> None:
    runtime = tensorrt.start()
    runtime.run(images_of(2))
    for batch in (2, 3):
        with pytest.raises(RuntimeFailureError, match=f"no images of batch {batch}") as caught:
            runtime.run_filled(batch)
        assert f"input_view({batch})" in caught.value.remedy
    with pytest.raises(RuntimeFailureError, match="does not take batch 9"):
        runtime.input_view(9)
    runtime.close()


@pytest.mark.usefixtures("no_collection")
@GRAPHS
def test_views_outlive_the_runtime_and_their_memory_goes_with_the_last_of_them(
    bench: Bench, *, graphs: bool
) -> None:
    runtime = bench.start(cuda_graphs=graphs)
    view = runtime.input_view(2)
    view[...] = images_of(2)
    logits = runtime.run_filled(2, copy=False)["logits"]
    part = view[1, 2:]
    runtime.close()
    assert dict(bench.gpu.live) == {"host buffer": 2}
    np.testing.assert_array_equal(logits, expected(images_of(2)))
    del view, logits
    assert dict(bench.gpu.live) == {"host buffer": 1}
    part += 1  # memory that is still there
    np.testing.assert_array_equal(part, images_of(2)[1, 2:] + 1)
    del part
    bench.gpu.assert_at_rest()
    uses: tuple[Callable[[int], object], ...] = (runtime.input_view, runtime.run_filled)
    for use in uses:
        with pytest.raises(RuntimeFailureError, match="was closed"):
            use(2)
