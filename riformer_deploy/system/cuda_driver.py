"""What the NVIDIA driver says of itself and its GPUs, asked through its own library."""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Callable
from dataclasses import dataclass

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        name: As the driver gives it.
        compute_capability: For example ``9.0``.
        memory_bytes: Total device memory.
        pci_address: Such as ``0000:3b:00.0``; of the whole GPU where this is an instance of it (MIG). None
            where the driver does not say.
        uuid: Of the GPU, or of the MIG instance, without a prefix; None where the driver does not say.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    pci_address: str | None = None
    uuid: str | None = None


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The driver and its GPUs.

    Attributes:
        cuda_version: Newest CUDA that the driver supports, for example ``13.0``; None without a driver.
        gpus: In the driver's order.
        problem: Why there is none, or None.
    """

    cuda_version: str | None
    gpus: tuple[Gpu, ...]
    problem: str | None


def _library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


class _RefusalError(Exception):
    """The driver answered a question with an error."""


def _ask(function: Callable[..., int], *arguments: object) -> None:
    if code := function(*arguments):
        raise _RefusalError(f"CUDA error {code} from {getattr(function, '__name__', 'the driver')}")


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    _ask(cuda.cuDeviceGet, ctypes.byref(device), index)
    _ask(cuda.cuDeviceGetName, name, len(name), device)
    _ask(cuda.cuDeviceGetAttribute, ctypes.byref(major), _MAJOR, device)
    _ask(cuda.cuDeviceGetAttribute, ctypes.byref(minor), _MINOR, device)
    _ask(cuda.cuDeviceTotalMem_v2, ctypes.byref(memory), device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        pci_address=_pci_address(cuda, device),
        uuid=_uuid(cuda, device),
    )


def _pci_address(cuda: ctypes.CDLL, device: ctypes.c_int) -> str | None:
    text = ctypes.create_string_buffer(32)
    try:
        _ask(cuda.cuDeviceGetPCIBusId, text, len(text), device)
    except (_RefusalError, AttributeError):
        return None
    return text.value.decode(errors="replace")


def _uuid(cuda: ctypes.CDLL, device: ctypes.c_int) -> str | None:
    content = ctypes.create_string_buffer(16)
    try:
        _ask(cuda.cuDeviceGetUuid_v2, content, device)  # the older function gives no MIG instance's
    except (_RefusalError, AttributeError):
        return None
    return str(uuid.UUID(bytes=content.raw))


def query_driver() -> Driver:
    """Ask the driver; a machine without one is an answer, not an error."""
    cuda = _library()
    if cuda is None:
        return Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
    shown = None
    version, count = ctypes.c_int(), ctypes.c_int()
    try:
        if not cuda.cuDriverGetVersion(ctypes.byref(version)) and version.value:
            shown = f"{version.value // 1000}.{version.value % 1000 // 10}"
        if code := cuda.cuInit(0):
            return Driver(
                cuda_version=shown, gpus=(), problem=f"the driver does not start (CUDA error {code})"
            )
        _ask(cuda.cuDeviceGetCount, ctypes.byref(count))
        gpus = tuple(_gpu(cuda, index) for index in range(count.value))
    except (_RefusalError, AttributeError) as err:
        return Driver(cuda_version=shown, gpus=(), problem=f"the driver cannot be asked: {err}")
    return Driver(cuda_version=shown, gpus=gpus, problem=None if gpus else "the driver sees no GPU")
