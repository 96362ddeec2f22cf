"""Imports what is large while coverage does not watch: with its tracer that takes twice as long."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings

_LARGE = ("torch._inductor.compile_fx", "onnxscript", "onnxsim", "openvino", "matplotlib.pyplot", "cv2")

_tracer = sys.gettrace()
sys.settrace(None)
try:
    with warnings.catch_warnings(action="ignore"):
        for _name in _LARGE:
            with contextlib.suppress(ImportError):  # tests that need it say so
                importlib.import_module(_name)
finally:
    sys.settrace(_tracer)
