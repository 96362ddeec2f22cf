"""How engines are run, and what they are measured against."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.common.enums import (
    Baselines,
    DeviceLayer,
)


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """How engines are run.

    Attributes:
        layer: Where device memory comes from.
        cuda_graphs: Which ways of launching take part: plain, as a CUDA graph, or both.
        required: Whether a bundle without any engine is an error.
        baselines: Which ways of running the weights with PyTorch they are measured against.
    """

    layer: DeviceLayer = DeviceLayer.CUDA_PYTHON
    cuda_graphs: tuple[bool, ...] = (False, True)
    required: bool = False
    baselines: Baselines = Baselines.STRONG
