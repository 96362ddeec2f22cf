"""A module that looks like one flavor of TensorRT and has nothing that this flavor lacks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.trt.bindings import TensorRT
from tests.fakes import trt_building, trt_running
from tests.fakes.api import SEVERITIES, api_of
from tests.fakes.gpu import FakeGpu
from tests.fakes.strict import Bound, bound_enum, callback
from tests.fakes.trt_running import Plan, Shape, sums

_BEHAVIOURS = {
    item.__name__: item
    for module in (trt_building, trt_running)
    for item in vars(module).values()
    if isinstance(item, type) and issubclass(item, Bound) and item is not Bound
}
_BITS = ("EngineInvalidityDiagnostics",)


class FakeTensorRT:
    """The module.

    Args:
        flavor: A name of :data:`tests.fakes.api.FLAVORS`.
        gpu: Where its engines run.
        has_driver: Without one, no runtime starts, and no builder but RTX's.

    Attributes:
        build_says: Messages of the builder: severity and text.
        build_fails: Whether it gives no plan.
        interrupt: Called in the middle of a build, which then goes on until it is cancelled.
        computes: What engines compute of their images.
        compiled: Shapes that RTX had to compile kernels for.
        graph_strategies: Of each context that was made.
        capturable: Whether RTX can capture a graph of a shape; it runs plain where it cannot.
        nvtx_verbosities: What contexts told NVTX when they ran.
        kernel_strategies: When kernels of new shapes are compiled, of each context that was made.
        used: Class and name of every member that was used of its objects.
    """

    _behaviours: ClassVar[Mapping[str, type[Bound]]] = _BEHAVIOURS

    def __init__(self, flavor: str, gpu: FakeGpu, *, has_driver: bool = True) -> None:
        self._api = api_of(flavor)
        self._gpu = gpu
        self._has_driver = has_driver
        self._logger: Callable[[], Any] = lambda: None
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self.__version__ = self._api.version
        self.build_says: Sequence[tuple[str, str]] = ()
        self.build_fails = False
        self.interrupt: Callable[[], None] | None = None
        self.computes: Callable[[Plan, Any], Any] = sums
        self.compiled: list[Any] = []
        self.graph_strategies: list[str] = []
        self.capturable: Callable[[Shape], bool] = lambda _shape: True
        self.nvtx_verbosities: set[str] = set()
        self.kernel_strategies: list[str] = []
        self.used: set[tuple[str, str]] = set()
        for name, members in self._api.enums.items():
            setattr(self, name, bound_enum(name, members, bits=name in _BITS))
        for name, behaviour in self._behaviours.items():
            if name in self._api.classes:
                body = {"_api": self._api.classes[name], "_trt": self}
                setattr(self, name, type(name, (behaviour,), body))
        self._severity = bound_enum("Severity", SEVERITIES)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self._api.flavor} has no {name}")

    def _enter(self, user: Any, kind: str, logger: Any) -> None:
        """A builder or runtime begins; the first one's logger is everybody's until all of them are gone."""
        if not self._has_driver and not (self._api.is_rtx and kind == "builder"):
            callback(logger, "log", self._severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        if self._users and self._logger() is not logger:
            self._say("WARNING", f"The logger passed into the {kind} differs from the one already registered")
        else:
            self._logger = weakref.ref(logger)
        self._users.add(user)
        self._owned(kind, user, "engine")

    def _say(self, severity: str, text: str) -> None:
        logger = self._logger()
        if logger is None:
            raise self._gpu.violate(f"TensorRT logs to a logger that is gone: {text}")
        callback(logger, "log", self._severity[severity], text)

    def _owned(
        self, kind: str, thing: Any, before: str | None = None, end: Callable[[], None] | None = None
    ) -> None:
        """Count an object; those of the kind ``before`` must be gone when it goes."""
        gpu = self._gpu

        def last() -> None:
            if before is not None and gpu.live[before] and not gpu.live[kind]:
                gpu.violations.append(f"the last {kind} is destroyed before every {before}")
            if end is not None:
                end()

        gpu.owned(kind, thing, last)


def bindings(flavor: str, gpu: FakeGpu, **options: Any) -> TensorRT:
    """What :func:`riformer_deploy.trt.bindings.load` would give, had it found this fake.

    Args:
        flavor: As for :class:`FakeTensorRT`.
        gpu: Likewise.
        options: Likewise.
    """
    module = FakeTensorRT(flavor, gpu, **options)
    backend = TensorRTFlavor.TENSORRT_RTX if "rtx" in flavor else TensorRTFlavor.TENSORRT
    return TensorRT(backend=backend, module=module, version=module.__version__, cuda=13)
