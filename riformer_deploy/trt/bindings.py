"""The bindings of one flavor of TensorRT, and what they log."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.common.dependencies import require

if TYPE_CHECKING:
    # Made by tests/conformance from what each flavor offers; for mypy anywhere else it is Any.
    from tensorrt_api import ILogger, Module, Severity

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TensorRT:
    """Bindings that were imported.

    Attributes:
        backend: The flavor.
        module: Its Python module.
        version: Its exact version.
        cuda: Major version of CUDA that its libraries were made for, or None where not known.
    """

    backend: TensorRTFlavor
    module: Module
    version: str
    cuda: int | None

    # What only some flavors have; mypy is given for each flavor whether it has it (tests/conformance).

    @property
    def has_compute_capabilities(self) -> bool:
        """Whether it builds for GPUs that are named, rather than for the one at hand only."""
        return hasattr(self.module, "ComputeCapability")

    @property
    def has_cuda_graphs(self) -> bool:
        """Whether it captures CUDA graphs itself."""
        return hasattr(self.module, "CudaGraphStrategy")

    @property
    def has_capturable_check(self) -> bool:
        """Whether it says which work it can capture as a CUDA graph."""
        return hasattr(self.module.IExecutionContext, "is_stream_capturable")

    @property
    def has_runtime_cache(self) -> bool:
        """Whether it compiles kernels when an engine runs, and hands them over for the next run."""
        return hasattr(self.module, "IRuntimeCache")

    @property
    def has_validity_check(self) -> bool:
        """Whether it judges a plan without loading it."""
        return hasattr(self.module.Runtime, "get_engine_validity")


def cuda_of(backend: TensorRTFlavor) -> int | None:
    """Major version of CUDA that the installed libraries were made for; nothing is imported.

    Args:
        backend: The flavor; its libraries come in distributions such as ``tensorrt-cu13``.
    """
    prefix = backend.module
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("-", "_")
        if match := re.fullmatch(rf"{prefix}_cu(\d+)(_libs)?", name):
            return int(match[1])
    return None


def load(backend: TensorRTFlavor) -> TensorRT:
    """Import the bindings of a flavor.

    Args:
        backend: The flavor.

    Raises:
        MissingDependencyError: They are not installed, or cannot be imported.
    """
    module = require(backend.module)
    return TensorRT(backend=backend, module=module, version=module.__version__, cuda=cuda_of(backend))


OnMessage = Callable[[str, str], None]
"""Called with the severity and the text of a message."""


class Log:
    """What TensorRT says while this lives, in order.

    TensorRT has one logger at a time: the one of the first builder or runtime serves all others until the
    last of them is gone, and must outlive them. So each flavor gets one for the life of the process, and
    every log hears all that is said.

    Args:
        trt: The bindings.
        on_message: Called with severity and text of each warning and error as it comes.
        kept: How many messages are remembered; None for all.

    Attributes:
        lines: Severity (``ERROR``, ``WARNING``, ``INFO``) and text of each message.
        logger: What to hand to TensorRT.
    """

    def __init__(
        self,
        trt: TensorRT,
        on_message: OnMessage = lambda _severity, _text: None,
        *,
        kept: int | None = None,
    ) -> None:
        self.lines: deque[tuple[str, str]] = deque(maxlen=kept)
        self.logger, listening = _logger(trt.module)
        self._on_message = on_message
        listening.add(self)

    def take(self, severity: str, text: str) -> None:
        """Remember a message; called by the logger."""
        self.lines.append((severity, text))
        if severity != "INFO":
            self._on_message(severity, text)

    @property
    def errors(self) -> list[str]:
        """Texts of the errors."""
        return [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]


@functools.cache
def _logger(module: Module) -> tuple[ILogger, weakref.WeakSet[Log]]:
    """The one ``ILogger`` of this flavor, and who listens to it."""
    listening: weakref.WeakSet[Log] = weakref.WeakSet()

    if not TYPE_CHECKING:
        ILogger = module.ILogger  # noqa: N806  # the base is known when it is imported

    class Logger(ILogger):  # type: ignore[misc]  # Any, unless tests/conformance says what it is
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Severity, msg: str) -> None:
            if severity.name != "VERBOSE":
                for log in list(listening):
                    log.take(severity.name, msg)

    return Logger(), listening


def started(maker: Callable[[ILogger], T], log: Log) -> T | None:
    """A builder or runtime; None where TensorRT cannot start, as without a driver.

    Args:
        maker: Its class.
        log: Hears why.
    """
    try:
        return maker(log.logger)
    except TypeError as err:
        if "nullptr" not in str(err):  # what pybind11 says when TensorRT gives a null pointer
            raise
        return None
