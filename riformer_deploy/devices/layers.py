"""Names of the device layers."""

from __future__ import annotations

from enum import StrEnum


class DeviceLayer(StrEnum):
    """The package that device memory comes from."""

    CUDA_PYTHON = "cuda-python"
    PYCUDA = "pycuda"
