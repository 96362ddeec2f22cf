"""Paths for libraries that take UTF-8 alone."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A file's path for a library that takes UTF-8 alone: its own, or for the block that of a link to it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, f"file{path.suffix}")
            link.symlink_to(path.absolute())
            yield str(link)
    else:
        yield str(path)
