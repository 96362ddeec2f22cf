"""Switches off what runtimes report of their use: files in the home folder, and look-ups of a host."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_OPENVINO = "openvino_telemetry"


def switch_off() -> None:
    """Before ONNX Runtime or Ray is imported, here and in every process that is started from here.

    What the user has set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def states() -> dict[str, str]:
    """Whether each runtime reports, by its name, and by which switch."""
    setting = os.environ.get("ORT_DISABLE_TELEMETRY", "")
    return {
        "ONNX Runtime": f"{'off' if setting == '1' else 'as it is built'} (ORT_DISABLE_TELEMETRY={setting})",
        "OpenVINO": "on: imported before riformer_deploy"
        if sys.modules.get(_OPENVINO) is not None
        else "off (its reporting package is not loaded)",
    }


@contextlib.contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """While OpenVINO is imported its reporting package cannot be, so that it takes its own stand-in."""
    if _OPENVINO in sys.modules:  # somebody else imported it, and it is theirs
        yield
        return
    sys.modules[_OPENVINO] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        yield
    finally:
        del sys.modules[_OPENVINO]
