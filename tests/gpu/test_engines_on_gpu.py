"""Engines on a real GPU: they pass preflight, compute the reference's function, and leak nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from riformer_deploy.bench import BenchOptions
from riformer_deploy.budgets import BUDGETS
from riformer_deploy.bundles import Bundle
from riformer_deploy.choices import DeviceLayer, Precision
from riformer_deploy.devices.opening import open_device
from riformer_deploy.errors import RuntimeFailureError
from riformer_deploy.evidence import bench_bundle
from riformer_deploy.images import synthetic_images
from riformer_deploy.lineup import Group
from riformer_deploy.optional import installed_version
from riformer_deploy.passports import EngineArtifact
from riformer_deploy.preflight import preflight, this_host
from riformer_deploy.proofs import prove_parity
from riformer_deploy.results import Status, Timing
from riformer_deploy.runtimes.engine import EngineRuntime
from riformer_deploy.trt.bindings import load

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
        engine.passport,
        load(engine.passport.backend),
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


def test_every_engine_is_within_its_budget_plain_and_as_a_graph(engines: Bundle) -> None:
    result = prove_parity(engines, BUDGETS, groups=(Group.ENGINE,))
    assert len(result.candidates) == 2 * len(engines.manifest.engines)
    assert {candidate.name: candidate.status for candidate in result.candidates} == {
        candidate.name: Status.PASSED for candidate in result.candidates
    }


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graph"])
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


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graph"])
def test_many_calls_take_no_more_device_memory_than_the_first_ones(engines: Bundle, *, graphs: bool) -> None:
    images = synthetic_images(8, SIZE, seed=0)
    meter = open_device(DeviceLayer.CUDA_PYTHON)
    try:
        with opened(engines, half(engines), graphs=graphs) as runtime:
            for batch in range(1, 9):  # more shapes than are kept
                runtime.run(images[:batch])
            before, _ = meter.memory_bytes()
            for number in range(400):
                runtime.run(images[: number % 8 + 1])
            after, _ = meter.memory_bytes()
        assert before - after < 16 * 2**20
    finally:
        meter.close()


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
        engines.directory, (Group.ENGINE,), BenchOptions(batches=(8,), rounds=10, repeats=10, warmup=10)
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
