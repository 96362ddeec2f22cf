"""Published checkpoints, fetched by name."""

from __future__ import annotations

from riformer_deploy.checkpoints.download import (
    DownloadOptions,
    DownloadReport,
    download_checkpoint,
    named_checkpoint,
)
from riformer_deploy.model.variants import get_variant

__all__ = ["DownloadOptions", "DownloadReport", "download_checkpoint", "get_variant", "named_checkpoint"]
