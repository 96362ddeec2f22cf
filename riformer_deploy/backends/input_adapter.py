"""Runtimes of graphs that take something other than normalised float32 images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from riformer_deploy.backends.base import (
    DeviceTimed,
    DeviceTimes,
    GraphLaunched,
    Outputs,
    Runtime,
    WarmTime,
)
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import InputForm, Precision
from riformer_deploy.data.transforms import Images, pixels_of


class _AdaptedRuntime(Runtime, GraphLaunched):
    """A runtime that takes images in another form than the normalised float32 that others take.

    What the last images became is remembered, so that a benchmark's timed calls do not convert.
    """

    def __init__(self, runtime: Runtime, convert: Callable[[Images], NDArray[Any]]) -> None:
        self._runtime, self._convert = runtime, convert
        self._last_images: Images | None = None
        self._last_converted: NDArray[Any] = np.empty(0)

    def _converted(self, images: Images) -> NDArray[Any]:
        if self._last_images is not images:
            self._last_images, self._last_converted = images, self._convert(images)
        return self._last_converted

    @override
    def run(self, images: Images) -> Outputs:
        return self._runtime.run(self._converted(images))

    @override
    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        return self._runtime.tap(self._converted(images), tensors)

    @property
    @override
    def graph_states(self) -> Mapping[int, GraphState]:
        return self._runtime.graph_states if isinstance(self._runtime, GraphLaunched) else {}

    @override
    def close(self) -> None:
        self._last_images, self._last_converted = None, np.empty(0)
        self._runtime.close()


class _AdaptedDeviceRuntime(_AdaptedRuntime, DeviceTimed):
    """The same for a runtime that keeps time on a device."""

    def __init__(
        self, runtime: Runtime, timed: DeviceTimed, convert: Callable[[Images], NDArray[Any]]
    ) -> None:
        super().__init__(runtime, convert)
        self._timed = timed

    @override
    def device_times(self, images: Images) -> DeviceTimes:
        return self._timed.device_times(self._converted(images))

    @override
    def warm_time(self, images: Images, inferences: int) -> WarmTime:
        return self._timed.warm_time(self._converted(images), inferences)


def adapt_input(runtime: Runtime, bundle: Bundle, lowering: LoweringConfig) -> Runtime:
    """A runtime of a graph as one that takes normalised float32 images.

    Args:
        runtime: Takes what the graph's input takes.
        bundle: The graph's.
        lowering: How the graph was lowered.
    """
    preprocessing = bundle.manifest.model.preprocessing
    if lowering.input_form is InputForm.UINT8:

        def convert(images: Images) -> NDArray[Any]:
            return pixels_of(images, preprocessing)
    elif lowering.io is Precision.FP16:

        def convert(images: Images) -> NDArray[Any]:
            return images.astype(np.float16)
    else:
        return runtime
    return (
        _AdaptedDeviceRuntime(runtime, runtime, convert)
        if isinstance(runtime, DeviceTimed)
        else _AdaptedRuntime(runtime, convert)
    )
