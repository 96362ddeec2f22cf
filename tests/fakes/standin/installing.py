"""Puts the stand-in where TensorRT is looked for, and takes it away again."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from riformer_deploy.backends import timing
from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.system import cuda_driver
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.trt.bindings import TensorRT, load
from tests.fakes.gpu import FakeGpu
from tests.fakes.standin.bindings import VERSION, StandInTensorRT
from tests.fakes.standin.machines import CudaMachine, HostCudaRuntime, HostMachine, LockedGpu

HOST = Driver(
    cuda_version="13.0",
    gpus=(Gpu(name="no GPU: the CPU stands in", compute_capability="9.0", memory_bytes=2**30),),
    problem=None,
)
"""What the driver says where host memory stands in for a GPU."""
_SCRATCH_BYTES = 64
"""What is filled before kernels are timed, where memory is the host's."""


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A stand-in that is in place.

    Attributes:
        trt: What :func:`riformer_deploy.trt.bindings.load` gives.
        gpu: The book on what exists and which rules were broken; ``assert_at_rest`` when all is closed.
    """

    trt: TensorRT
    gpu: FakeGpu


@contextmanager
def _imported(name: str, module: object) -> Iterator[None]:
    """Let a name be imported as this."""
    before = sys.modules.get(name)
    sys.modules[name] = module  # type: ignore[assignment]  # whatever has the members will do
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


@contextmanager
def _installed(**versions: str) -> Iterator[None]:
    """Let distributions be found by :mod:`importlib.metadata`, before any others of their names.

    Args:
        versions: By name, with underscores.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, version in versions.items():
            directory = Path(folder) / f"{name}-{version}.dist-info"
            directory.mkdir()
            text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            (directory / "METADATA").write_text(text, encoding="utf-8")
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            importlib.invalidate_caches()


def _swap(name: str, before: object, after: object) -> None:
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is before:
            setattr(module, name, after)


@contextmanager
def _everywhere(home: object, name: str, value: object) -> Iterator[None]:
    """Replace something of a module in every module that has imported it, or does meanwhile."""
    before = getattr(home, name)
    _swap(name, before, value)
    try:
        yield
    finally:
        _swap(name, value, before)


@contextmanager
def standing_in(device: Literal["cuda", "cpu"]) -> Iterator[StandIn]:
    """Let the stand-in be TensorRT for a while, for the library and the command line alike.

    Engines that are built and run meanwhile say ``TensorRT 99.0+standin``.

    Args:
        device: ``cuda`` runs engines on the first GPU with PyTorch. ``cpu`` needs none: the fake CUDA runtime
            is ``cuda.bindings.runtime`` meanwhile, and the driver says that there is a GPU.
    """
    with ExitStack() as stack:
        packages = {"tensorrt": VERSION}
        gpu = LockedGpu()
        if device == "cpu":
            cuda = HostCudaRuntime(gpu)
            machine: CudaMachine | HostMachine = HostMachine(cuda)
            stack.enter_context(_imported("cuda.bindings.runtime", cuda))
            stack.enter_context(_everywhere(cuda_driver, "query_driver", lambda: HOST))
            stack.enter_context(_everywhere(timing, "OCCUPYING_BYTES", _SCRATCH_BYTES))
            if installed_version("cuda.bindings") is None:
                packages["cuda_bindings"] = "13.0"
        else:
            machine = CudaMachine()
        module = StandInTensorRT(machine, gpu)
        stack.enter_context(_imported("tensorrt", module))
        stack.enter_context(_installed(**packages))
        yield StandIn(trt=load(TensorRTFlavor.TENSORRT), gpu=gpu)
