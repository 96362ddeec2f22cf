"""Imports what is large while coverage does not watch, in pytest-xdist's workers, which need all of it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings

from tests.tracing import untraced

_LARGE = ("torch._inductor.compile_fx", "onnxscript", "onnxsim", "openvino", "matplotlib.pyplot", "cv2")

if sys.gettrace() is not None and "PYTEST_XDIST_WORKER" in os.environ:
    with untraced(), warnings.catch_warnings(action="ignore"):
        for _name in _LARGE:
            with contextlib.suppress(Exception):  # one that is missing or broken is the tests' to tell
                importlib.import_module(_name)
