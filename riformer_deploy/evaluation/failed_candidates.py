"""Candidates that a bundle's stored parity says failed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from riformer_deploy.backends.base import Candidate
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.common.errors import BundleError
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import CandidateParity
from riformer_deploy.evaluation.stored_parity import stored_parity

_LOG = logging.getLogger(__name__)


def stored_failure(bundle: Bundle, candidate: Candidate) -> CandidateParity | None:
    """The stored verdict of this very file in this runtime, if it failed.

    PyTorch is never refused: what it runs is rebuilt from the weights that everything is compared with.

    Args:
        bundle: Open.
        candidate: Of the bundle's.

    Raises:
        BundleIntegrityError: The stored parity's file was changed.
        BundleError: It is no valid record.
    """
    if candidate.config.runtime is RuntimeKind.PYTORCH:
        return None
    kinds = [e.parity_kind for e in bundle.manifest.engines if e.file.sha256 == candidate.artifact_sha256]
    parity = stored_parity(bundle, kinds[0] if kinds else "parity")
    for failed in parity.failed if parity is not None else ():
        if (failed.runtime, failed.artifact_sha256) == (candidate.config.runtime, candidate.artifact_sha256):
            return failed
    return None


def warn_of_failures(bundle: Bundle, candidates: Sequence[Candidate]) -> None:
    """Say which of them failed their stored parity; they are measured all the same."""
    for candidate in candidates:
        try:
            failure = stored_failure(bundle, candidate)
        except BundleError as err:  # a measurement of another kind needs no parity
            _LOG.warning("whether parity holds is not known: %s", err.message)
            return
        if failure is not None:
            _LOG.warning("failed parity: %s", why_failed(failure))
