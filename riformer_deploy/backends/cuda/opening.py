"""Which device layer is opened."""

from __future__ import annotations

from typing import assert_never

from riformer_deploy.backends.cuda.base import Device
from riformer_deploy.backends.cuda.cuda_python import CudaPythonDevice
from riformer_deploy.backends.cuda.pycuda import PyCudaDevice
from riformer_deploy.common.enums import DeviceLayer


def open_device(layer: DeviceLayer) -> Device:
    """A stream on the first GPU.

    Args:
        layer: The package to use.

    Raises:
        MissingDependencyError: It is not installed.
        RuntimeFailureError: There is no GPU, or its driver is too old.
    """
    match layer:
        case DeviceLayer.CUDA_PYTHON:
            return CudaPythonDevice()
        case DeviceLayer.PYCUDA:
            return PyCudaDevice()
        case _:
            assert_never(layer)
