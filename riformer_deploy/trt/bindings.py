"""The bindings of one flavour of TensorRT, and what they log."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from riformer_deploy.optional import require
from riformer_deploy.passports import Backend


@dataclass(frozen=True, kw_only=True)
class TensorRT:
    """Bindings that were imported.

    Attributes:
        backend: The flavour.
        module: Its Python module.
        version: Its exact version.
        cuda: Major version of CUDA that its libraries were made for, or None where not known.
    """

    backend: Backend
    module: Any
    version: str
    cuda: int | None


def cuda_of(backend: Backend) -> int | None:
    """Major version of CUDA that the installed libraries were made for; nothing is imported.

    Args:
        backend: The flavour; its libraries come in distributions such as ``tensorrt-cu13``.
    """
    prefix = backend.module
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("-", "_")
        if match := re.fullmatch(rf"{prefix}_cu(\d+)(_libs)?", name):
            return int(match[1])
    return None


def load(backend: Backend) -> TensorRT:
    """Import the bindings of a flavour.

    Args:
        backend: Which.

    Raises:
        MissingDependencyError: They are not installed, or cannot be imported.
    """
    module = require(backend.module)
    return TensorRT(backend=backend, module=module, version=module.__version__, cuda=cuda_of(backend))


Told = Callable[[str, str], None]
"""Called with the severity and the text of a message."""


class Log:
    """What TensorRT said, in order.

    Args:
        trt: Whose.
        told: Told of each warning and error as it comes: severity and text.

    Attributes:
        lines: Severity (``ERROR``, ``WARNING``, ``INFO``) and text of each message.
        logger: What to hand to TensorRT; must live as long as what was made with it.
    """

    def __init__(self, trt: TensorRT, told: Told = lambda _severity, _text: None) -> None:
        self.lines: list[tuple[str, str]] = []
        self.logger = _logger(trt.module, self._take)
        self._told = told

    def _take(self, severity: str, text: str) -> None:
        if severity == "VERBOSE":
            return
        self.lines.append((severity, text))
        if severity != "INFO":
            self._told(severity, text)

    @property
    def errors(self) -> list[str]:
        """Texts of the errors."""
        return [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]


def _logger(module: Any, take: Callable[[str, str], None]) -> Any:
    """An ``ILogger`` of this flavour that hands its messages on."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the base is known when it is imported
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            take(severity.name, msg)

    return Logger()
