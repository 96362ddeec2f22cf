"""RIFormer checkpoints to verified deployment artifacts.

The public names are those that ``__init__.pyi`` imports, and each is imported when it is first used:
importing the package itself loads neither PyTorch nor ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.common.lazy_names import attach, read_stub
from riformer_deploy.common.telemetry import switch_off
from riformer_deploy.common.version import VERSION

__version__ = VERSION

switch_off()

_HOMES = read_stub(Path(__file__).with_name("__init__.pyi"))
__all__ = list(_HOMES)
__getattr__ = attach(__name__, _HOMES)


def __dir__() -> list[str]:
    """Everything that can be asked for, imported or not."""
    return sorted({*globals(), *_HOMES})
