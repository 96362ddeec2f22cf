"""`serve`: a bundle's models in a server, and whether a server gives what the bundle says."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.serving.triton_repository import (
    PicturePreprocessing,
    TritonOptions,
    TritonReport,
    write_repository,
)

__all__ = [
    "PicturePreprocessing",
    "TritonOptions",
    "TritonReport",
    "write_triton_repository",
]


def write_triton_repository(directory: Path | str, options: TritonOptions) -> TritonReport:
    """``serve triton``: write a bundle's model as a repository that Triton serves.

    Args:
        directory: The bundle.
        options: What to write, and where.

    Raises:
        BundleError: It is not a bundle, a file was changed, it keeps no golden inputs, or it holds nothing
            that Triton can run as asked; what was refused is named with the reason.
        BundleConflictError: The repository exists, and is not to be replaced.
        OptionError: Pictures cannot be prepared as the bundle says, or the repository cannot be written.
        MissingDependencyError: The bundle's pictures are resized with OpenCV, which is not installed.
    """
    return write_repository(Bundle.open(directory), options)
