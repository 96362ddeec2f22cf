"""Engines that were built, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output import print_table, say

if TYPE_CHECKING:
    from riformer_deploy.api.build import BuildReport


def print_build(report: BuildReport) -> None:
    """What was built, for which GPUs and batch sizes."""
    print_table(
        f"Engines of {report.bundle}",
        ("!engine", "for compute capability", "batches", ">MiB", ">seconds"),
        [
            (
                engine.file.path,
                engine.targets,
                ", ".join(map(str, engine.metadata.profiles)),
                f"{engine.file.size_bytes / 2**20:.2f}",
                f"{engine.metadata.build_ms / 1000:.1f}",
            )
            for engine in report.engines
        ],
    )
    for engine in report.engines:
        metadata = engine.metadata
        built = f"{metadata.backend.label} {metadata.backend_version}"
        say(f"{engine.file.path}: {built}, sha256 {engine.file.sha256[:16]}")
    say("Verify them with `riformer-deploy verify parity`, on a machine with the GPU that they are for.")
