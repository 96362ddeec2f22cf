from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.engine_bench import RTX, TENSORRT, Bench, MakeBench, make_bench
from tests.fakes.api import FLAVORS
from tests.fakes.gpu import FakeGpu


@pytest.fixture
def bench_of(tmp_path: Path, gpu: FakeGpu) -> MakeBench:
    """``bench_of(flavor, profiles=..., settings=..., **graph)``: a plan, built by that flavor's fake."""
    return functools.partial(make_bench, folder=tmp_path, gpu=gpu)


@pytest.fixture(params=FLAVORS)
def bench(request: pytest.FixtureRequest, bench_of: MakeBench) -> Bench:
    """One plan of every flavor, batch 1 to 8."""
    return bench_of(request.param)


@pytest.fixture
def rtx(bench_of: MakeBench) -> Bench:
    """A plan of TensorRT-RTX, batch 1 to 8."""
    return bench_of(RTX)


@pytest.fixture
def tensorrt(bench_of: MakeBench) -> Bench:
    """A plan of TensorRT, batch 1 to 8."""
    return bench_of(TENSORRT)
