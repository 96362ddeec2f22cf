"""Which device layer is opened."""

from __future__ import annotations

from typing import assert_never

from riformer_deploy.common.enums import DeviceLayer
from riformer_deploy.devices.base import Device
from riformer_deploy.devices.cuda_python import CudaPythonDevice
from riformer_deploy.devices.py_cuda import PyCudaDevice


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
