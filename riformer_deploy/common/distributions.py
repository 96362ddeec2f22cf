"""Versions of installed distributions."""

from __future__ import annotations

import importlib.metadata
import re

_VERSION = re.compile(r"^version:\s*(\S+)\s*$", re.MULTILINE | re.IGNORECASE)


def version_of(name: str) -> str:
    """Version of an installed distribution.

    ``importlib.metadata.version`` parses licences and descriptions, too, which takes milliseconds each.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    found = importlib.metadata.distribution(name)
    header = (found.read_text("METADATA") or "").partition("\n\n")[0]
    version = _VERSION.search(header)
    return found.version if version is None else version[1]
