"""The real ``cuda.bindings.runtime``: names, arguments, and what it says without a driver."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from riformer_deploy.backends.cuda import cuda_python
from riformer_deploy.backends.cuda.base import DeviceBuffer, HostBuffer
from riformer_deploy.backends.cuda.cuda_python import CudaPythonDevice
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.system.cuda_driver import query_driver
from tests.fakes.cuda_runtime import FakeCudaRuntime
from tests.fakes.gpu import FakeGpu

pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed (extra dev)")
without_driver = pytest.mark.skipif(bool(query_driver().gpus), reason="there is a GPU; tests/gpu use it")


@pytest.fixture(scope="module")
def runtime() -> Any:
    """The real module."""
    from cuda.bindings import runtime as found  # noqa: PLC0415  # only where it is installed

    return found


def _names(source: str) -> set[str]:
    """Names that code takes from ``self._cuda``, with those below them joined by a dot."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            parts = [node.attr]
            value: ast.expr = node.value
            while isinstance(value, ast.Attribute):
                parts.append(value.attr)
                value = value.value
            if "_cuda" in parts:
                found.add(".".join(reversed(parts[: parts.index("_cuda")])))
    return found - {""}


def _missing(source: str, module: Any) -> list[str]:
    missing = []
    for name in sorted(_names(source)):
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        missing += [] if found is not None else [name]
    return missing


def test_every_name_that_is_used_exists(runtime: Any) -> None:
    source = inspect.getsource(cuda_python)
    assert len(_names(source)) > 20
    assert not _missing(source, runtime)
    mutated = source.replace("cudaHostAllocDefault", "cudaHostAllocPlain").replace(
        "ModeThreadLocal", "ModeMine"
    )
    assert _missing(mutated, runtime) == [
        "cudaHostAllocPlain",
        "cudaStreamCaptureMode.cudaStreamCaptureModeMine",
    ]


def test_the_fake_takes_what_the_real_one_takes(runtime: Any) -> None:
    fake = FakeCudaRuntime(FakeGpu())
    functions = [
        name for name in dir(fake) if name.startswith("cuda") and inspect.ismethod(getattr(fake, name))
    ]
    assert len(functions) > 15
    for name in functions:
        real = inspect.signature(getattr(runtime, name)).parameters
        assert list(inspect.signature(getattr(fake, name)).parameters) == list(real), name
    for enum in (fake.cudaError_t, fake.cudaMemcpyKind, fake.cudaStreamCaptureMode):
        real_enum = getattr(runtime, enum.__name__)
        for member in enum:
            assert int(getattr(real_enum, member.name)) == member.value


@without_driver
def test_without_a_driver_it_says_so() -> None:
    said = r"cudaSetDevice failed: CUDA driver version is insufficient.*InsufficientDriver"
    with pytest.raises(RuntimeFailureError, match=said):
        CudaPythonDevice()


BUFFER = DeviceBuffer(address=256, size_bytes=8, owner=256)
HOST = HostBuffer(data=np.zeros(8, np.uint8), owner=512)

CALLS: list[Callable[[CudaPythonDevice, Any], object]] = [
    lambda device, _: device.allocate(8),
    lambda device, _: device.free(BUFFER),
    lambda device, _: device.allocate_host(8),
    lambda device, _: device.free_host(HOST),
    lambda device, _: device.to_device(BUFFER, HOST),
    lambda device, _: device.to_host(HOST, BUFFER),
    lambda device, _: device.clear(BUFFER),
    lambda device, _: device.event(),
    lambda device, cuda: device.record(cuda.cudaEvent_t(0)),
    lambda device, cuda: device.is_done(cuda.cudaEvent_t(0)),
    lambda device, cuda: device.elapsed_ms(cuda.cudaEvent_t(0), cuda.cudaEvent_t(0)),
    lambda device, cuda: device.free_event(cuda.cudaEvent_t(0)),
    lambda device, _: device.capture(lambda: None),
    lambda device, cuda: device.launch(cuda.cudaGraphExec_t(0)),
    lambda device, cuda: device.free_graph(cuda.cudaGraphExec_t(0)),
    lambda device, _: device.synchronize(),
    lambda device, _: device.memory_bytes(),
    lambda device, _: device.close(),
]


@without_driver
@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_the_real_functions_take_our_arguments_and_their_refusals_are_runtime_failures(
    runtime: Any, call: Callable[[CudaPythonDevice, Any], object]
) -> None:
    device = object.__new__(CudaPythonDevice)
    device._cuda = runtime
    device._stream = runtime.cudaStream_t(0)
    with pytest.raises(RuntimeFailureError, match=r"cuda\w+ failed: .*cudaErrorInsufficientDriver"):
        call(device, runtime)


@without_driver
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("cudaStreamEndCapture", lambda cuda: (cuda.cudaStream_t(0),)),
        ("cudaGraphInstantiate", lambda cuda: (cuda.cudaGraph_t(0), 0)),
        ("cudaGraphDestroy", lambda cuda: (cuda.cudaGraph_t(0),)),
        ("cudaEventElapsedTime", lambda cuda: (cuda.cudaEvent_t(0), cuda.cudaEvent_t(0))),
    ],
)
def test_functions_behind_others_take_our_arguments_too(
    runtime: Any, function: str, arguments: Callable[[Any], tuple[Any, ...]]
) -> None:
    code, *_ = getattr(runtime, function)(*arguments(runtime))
    assert code == runtime.cudaError_t.cudaErrorInsufficientDriver
