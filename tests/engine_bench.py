"""An engine of a fake flavor, ready to be run by our runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from riformer_deploy.backends.tensorrt import EngineRuntime
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, EngineMetadata
from riformer_deploy.trt.bindings import TensorRT
from riformer_deploy.trt.builder import BuildRequest, build_plan
from riformer_deploy.trt.runtime_cache import RuntimeCache
from tests.fakes.api import FLAVORS
from tests.fakes.gpu import FakeDevice, FakeGpu
from tests.fakes.tensorrt import bindings
from tests.fakes.trt_building import write_graph

RTX = next(flavor for flavor in FLAVORS if "rtx" in flavor)
TENSORRT = next(flavor for flavor in FLAVORS if "rtx" not in flavor)
ONE = (BatchProfile(minimum=1, optimum=4, maximum=8),)


@dataclass
class Bench:
    """A plan of a fake flavor and what runs it."""

    trt: TensorRT
    plan: Path
    metadata: EngineMetadata
    gpu: FakeGpu

    @property
    def module(self) -> Any:
        return self.trt.module

    def start(
        self,
        *,
        cuda_graphs: bool = False,
        kept: RuntimeCache | None = None,
        captures: bool = True,
        sha256: str | None = None,
    ) -> EngineRuntime:
        device = FakeDevice(self.gpu, captures_graphs=captures)
        return EngineRuntime(
            self.plan, self.metadata, self.trt, device, cuda_graphs=cuda_graphs, kept=kept, sha256=sha256
        )


MakeBench = Callable[..., Bench]


def images_of(batch: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((batch, 3, 4, 4)).astype(np.float32)


def expected(images: Any) -> Any:
    return np.outer(images.astype(np.float64).sum(axis=(1, 2, 3)), np.arange(1, 6)).astype(np.float32)


def make_bench(
    flavor: str,
    folder: Path,
    gpu: FakeGpu,
    *,
    profiles: tuple[BatchProfile, ...] = ONE,
    settings: BuildSettings = BuildSettings(),  # noqa: B008  # frozen
    **graph: Any,
) -> Bench:
    """A plan, built by that flavor's fake; ``graph`` is as for ``write_graph``."""
    trt = bindings(flavor, gpu)
    request = BuildRequest(
        onnx=write_graph(folder / "model.onnx", **graph),
        input_name="images",
        sample_shape=(3, 4, 4),
        profiles=profiles,
        settings=settings,
    )
    plan = folder / "model.engine"
    plan.write_bytes(build_plan(trt, request, lambda _: None, lambda *_: None).plan)
    metadata = EngineMetadata(
        backend=trt.backend,
        backend_version=trt.version,
        backend_cuda=13,
        onnx_sha256="0",
        weights_sha256="0",
        driver_cuda="13.0",
        gpu="fake",
        gpu_compute_capability="9.0",
        profiles=profiles or ONE,
        settings=settings,
        build_ms=1,
        network_layers={},
        engine_layers=None,
    )
    gpu.assert_at_rest()
    gpu.made.clear()
    return Bench(trt=trt, plan=plan, metadata=metadata, gpu=gpu)
