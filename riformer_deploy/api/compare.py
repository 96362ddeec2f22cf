"""`compare`: what changed from one bundle, or result, to another."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.evaluation.results import Status
from riformer_deploy.reporting.comparison import CompareOptions, compare_evidence
from riformer_deploy.reporting.comparison_records import ComparisonReport
from riformer_deploy.reporting.evidence import read_evidence

__all__ = ["CompareOptions", "ComparisonReport", "Status", "compare_bundles"]


def compare_bundles(
    before: Path | str, after: Path | str, options: CompareOptions | None = None
) -> ComparisonReport:
    """``compare``: set two bundles, or two results of the same kind, side by side, and hold the gates.

    Args:
        before: The first: a bundle, or its ``parity.json``, ``latency.json`` or ``accuracy.json``.
        after: The second.
        options: What may change; None means no gate but parity.

    Raises:
        BundleError: One of them is neither a bundle nor a result.
        BundleIntegrityError: A result of a bundle was changed.
    """
    return compare_evidence(
        read_evidence(Path(before)), read_evidence(Path(after)), options or CompareOptions()
    )
