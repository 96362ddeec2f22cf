"""The user's file of kernel timings, which lets TensorRT build alike engines again in less time."""

from __future__ import annotations

import os
from pathlib import Path

from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.files import read_regular
from riformer_deploy.common.replacing import replacing

_MOST_BYTES = 2**30


def read_cache(cache: Path | str | None) -> bytes | None:
    """What the file holds; empty where there is none yet, None where none was asked for.

    Args:
        cache: The file.

    Raises:
        OptionError: It cannot be read, or it could not be written later.
    """
    if cache is None:
        return None
    path = Path(cache)
    if not os.access(path.parent, os.W_OK):  # refused now rather than after minutes of building
        raise OptionError(
            f"The timing cache {path} cannot be written: {path.parent} is no folder that can be written to."
        )
    try:
        return read_regular(path, _MOST_BYTES) if path.exists() else b""
    except OSError as err:
        raise OptionError(f"The timing cache {path} cannot be read: {err.strerror}.") from err


def write_cache(path: Path | str | None, content: bytes | None) -> str | None:
    """Keep kernel timings; an engine that is built is not thrown away because they cannot be kept.

    Args:
        path: The file; None keeps nothing.
        content: The timings; None where the builder gave none.

    Returns:
        Why they could not be kept; None where there is nothing to tell.
    """
    if path is None or content is None:
        return None
    try:
        with replacing(Path(path)) as partial:
            partial.write_bytes(content)
    except OSError as err:
        return f"the timing cache {path} could not be written: {err.strerror}"
    return None
