"""sha256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from riformer_deploy.common.files import open_regular


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's content, read in pieces.

    Raises:
        NotRegularFileError: It is not a regular file.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
