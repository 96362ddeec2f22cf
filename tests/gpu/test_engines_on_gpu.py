"""Engines on a real GPU: they pass preflight, compute the reference's function, and leak nothing."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from riformer_deploy.api.bench import bench_bundle
from riformer_deploy.api.parity import measure_parity
from riformer_deploy.backends.cuda.opening import open_device
from riformer_deploy.backends.pytorch_candidates import reference
from riformer_deploy.backends.tensorrt import EngineRuntime
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.enums import DeviceLayer, Group, Precision
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.results import Status, Timing
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.engine import Engine
from riformer_deploy.trt.preflight import preflight, preflight_here, this_host

SIZE = (64, 64)


@contextlib.contextmanager
def opened(
    bundle: Bundle,
    engine: EngineArtifact,
    *,
    graphs: bool = False,
    layer: DeviceLayer = DeviceLayer.CUDA_PYTHON,
) -> Iterator[EngineRuntime]:
    runtime = EngineRuntime(
        bundle.path_of(engine.file),
        engine.metadata,
        load(engine.metadata.backend),
        open_device(layer),
        cuda_graphs=graphs,
    )
    try:
        yield runtime
    finally:
        runtime.close()


def half(bundle: Bundle) -> EngineArtifact:
    return next(engine for engine in bundle.manifest.engines if engine.precision is Precision.FP16)


def test_preflight_passes_for_engines_built_here(engines: Bundle) -> None:
    for engine in engines.manifest.engines:
        assert preflight(engine, engines.path_of(engine.file), this_host()) == ()


def test_every_engine_is_within_its_tolerance_plain_and_as_a_graph(engines: Bundle) -> None:
    result = measure_parity(engines, TOLERANCES, groups=(Group.ENGINE,))
    assert len(result.candidates) == 2 * len(engines.manifest.engines)
    assert {candidate.name: candidate.status for candidate in result.candidates} == {
        candidate.name: Status.PASSED for candidate in result.candidates
    }


def test_loading_succeeds_where_preflight_says_so_and_nowhere_else(built_engines: Bundle) -> None:
    for engine in built_engines.manifest.engines:
        path = built_engines.path_of(engine.file)
        refused = preflight_here(engine, path)
        try:
            Engine(load(engine.metadata.backend), path.read_bytes(), what=path.name).close()
            loaded = True
        except RuntimeFailureError:
            loaded = False
        assert loaded == (refused == ()), refused


BOTH = pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graph"])


@BOTH
def test_new_images_give_new_and_right_outputs(engines: Bundle, *, graphs: bool) -> None:
    true = reference(engines).open()
    with opened(engines, half(engines), graphs=graphs) as runtime:
        for seed in range(4):
            images = synthetic_images(4, SIZE, seed=seed)
            expected = true.run(images)["logits"]
            got = runtime.run(images)["logits"]
            np.testing.assert_allclose(got, expected, rtol=0, atol=0.02 * np.abs(expected).max())
            np.testing.assert_array_equal(runtime.run(images)["logits"], got)
    true.close()


def by_batch(runtime: EngineRuntime, images: NDArray[np.float32]) -> list[NDArray[np.floating]]:
    """Outputs of more batch sizes than stay prepared."""
    return [runtime.run(images[:batch])["logits"] for batch in range(1, len(images) + 1)]


@BOTH
def test_shapes_that_were_evicted_give_the_same_again(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(8, SIZE, seed=0)
    with opened(engines, half(engines), graphs=graphs) as runtime:
        first = by_batch(runtime, images)
        for got, before in zip(by_batch(runtime, images), first, strict=True):
            np.testing.assert_array_equal(got, before)


@BOTH
def test_two_runtimes_at_once_give_what_each_gives_alone(engines: Bundle, *, graphs: bool) -> None:
    both = [synthetic_images(8, SIZE, seed=seed) for seed in (0, 1)]
    alone = []
    for images in both:
        with opened(engines, half(engines), graphs=graphs) as runtime:
            alone.append(by_batch(runtime, images))
    together = threading.Barrier(2, timeout=60)

    def work(images: NDArray[np.float32]) -> list[list[NDArray[np.floating]]]:
        with opened(engines, half(engines), graphs=graphs) as runtime:
            together.wait()
            return [by_batch(runtime, images) for _ in range(3)]

    with ThreadPoolExecutor(2) as pool:
        for rounds, expected in zip(pool.map(work, both), alone, strict=True):
            for outputs in rounds:
                for got, true in zip(outputs, expected, strict=True):
                    np.testing.assert_array_equal(got, true)


@BOTH
def test_a_runtime_goes_on_while_others_are_opened_and_closed(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(4, SIZE, seed=0)
    over = threading.Event()
    with (
        opened(engines, half(engines), graphs=graphs) as staying,
        ThreadPoolExecutor(1) as pool,
    ):
        expected = staying.run(images)["logits"]

        def go_on() -> list[NDArray[np.floating]]:
            outputs = []
            while not over.is_set():
                outputs.append(staying.run(images)["logits"])
            return outputs

        going = pool.submit(go_on)
        try:
            for _ in range(4):
                with opened(engines, half(engines), graphs=graphs) as other:
                    other.run(images[:2])
        finally:
            over.set()
        outputs = going.result(60)
        assert outputs
        for got in outputs:
            np.testing.assert_array_equal(got, expected)


def _give_back() -> None:
    """Let go of memory that PyTorch, which the stand-in computes with, keeps for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


@BOTH
def test_closing_gives_all_device_memory_back(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(8, SIZE, seed=0)
    evaluator = open_device(DeviceLayer.CUDA_PYTHON)

    def live_once() -> None:
        with opened(engines, half(engines), graphs=graphs) as runtime:
            for batch in (1, 4, 8):
                runtime.run(images[:batch])
        _give_back()

    try:
        live_once()  # what CUDA keeps for good is allocated now
        before, _ = evaluator.memory_bytes()
        for _ in range(5):
            live_once()
        after, _ = evaluator.memory_bytes()
        assert before - after < 16 * 2**20
    finally:
        evaluator.close()


@BOTH
def test_batches_of_every_profile_give_what_single_images_give(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(16, SIZE, seed=0)
    with opened(engines, half(engines), graphs=graphs) as runtime:
        single = np.concatenate([runtime.run(images[i : i + 1])["logits"] for i in range(16)])
        for batch in (2, 3, 8, 16):
            np.testing.assert_allclose(
                runtime.run(images[:batch])["logits"],
                single[:batch],
                rtol=0,
                atol=0.02 * np.abs(single).max(),
            )
        with pytest.raises(RuntimeFailureError, match="does not take batch 17"):
            runtime.run(synthetic_images(17, SIZE, seed=0))


@BOTH
def test_many_calls_take_no_more_device_memory_than_the_first_ones(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(8, SIZE, seed=0)
    evaluator = open_device(DeviceLayer.CUDA_PYTHON)
    try:
        with opened(engines, half(engines), graphs=graphs) as runtime:
            # four shapes are kept; a fifth puts one of them out now and then, and each such makes a context
            batches = [5 if number % 20 == 19 else number % 4 + 1 for number in range(300)]
            for batch in batches[:40]:
                runtime.run(images[:batch])
            before, _ = evaluator.memory_bytes()
            for batch in batches:
                runtime.run(images[:batch])
            after, _ = evaluator.memory_bytes()
        assert before - after < 16 * 2**20
    finally:
        evaluator.close()


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graph"])
def test_images_that_are_written_into_the_view_are_what_is_run(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(4, SIZE, seed=0)
    with opened(engines, half(engines), graphs=graphs) as runtime:
        expected = runtime.run(images)["logits"]
        view = runtime.input_view(4)
        view[...] = images
        np.testing.assert_array_equal(runtime.run_filled(4)["logits"], expected)
        assert set(runtime.graph_states) == ({4} if graphs else set())
    view += 1  # what it lies in outlives the runtime
    np.testing.assert_array_equal(view, images + 1)


def test_device_times_are_part_of_the_call(engines: Bundle) -> None:
    result = bench_bundle(
        engines.directory, (Group.ENGINE,), BenchOptions(batches=(8,), rounds=10, repeats=3, warmup=3)
    )
    median = {(s.name, s.timing): s.summary.median_ms for s in result.samples}
    for engine in engines.manifest.engines:
        parts = median[engine.name, Timing.COMPUTE] + median[engine.name, Timing.TRANSFERS]
        assert 0 < parts < 1.5 * median[engine.name, Timing.CALL]
    assert result.gpu is not None


@pytest.mark.skipif(installed_version("pycuda") is None, reason="PyCUDA is not installed")
def test_pycuda_gives_what_cuda_python_gives(engines: Bundle) -> None:
    images = synthetic_images(4, SIZE, seed=0)
    with (
        opened(engines, half(engines)) as one,
        opened(engines, half(engines), layer=DeviceLayer.PYCUDA) as two,
    ):
        np.testing.assert_array_equal(one.run(images)["logits"], two.run(images)["logits"])
