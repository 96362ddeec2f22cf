"""Parity that failed: why in words, and what a bundle's stored parity says of a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.graph_state import titled
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.common.errors import (
    BundleError,
)
from riformer_deploy.common.serialization import RecordError, load_json, schema_of
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    CandidateParity,
    OutputParity,
    ParityResult,
    StageParity,
    Status,
)
from riformer_deploy.evaluation.tolerances import Tolerance

_LOG = logging.getLogger(__name__)


def _output_failure(output: OutputParity, tolerance: Tolerance) -> str:
    """The figures of an output that are out, each with its limit."""
    distance = output.deviation
    if not distance.finite:
        return "values that are not finite"
    reasons = []
    least = tolerance.min_sqnr_db
    if least is not None and distance.sqnr_db is not None and distance.sqnr_db < least:
        # Rounded down, so that 55.97 dB do not read as the 56 that are needed.
        reasons.append(f"SQNR {math.floor(distance.sqnr_db * 10) / 10:.1f} dB, at least {least:g} is needed")
    if tolerance.elementwise is not None and (
        distance.elementwise_used is None or distance.elementwise_used > 1
    ):
        rtol, atol = tolerance.elementwise
        times = "" if distance.elementwise_used is None else f", {distance.elementwise_used:.3g} times what"
        limit = f"{times or ', more than'} {atol:g} + {rtol:g} |reference| allows"
        reasons.append(f"|difference| up to {distance.max_abs:.2e}{limit}")
    if output.decisions is not None and output.decisions.decided_flips:
        count, images = output.decisions.decided_flips, output.decisions.images
        reasons.append(f"{count} of {images} images change their first class, 0 may by so clear a margin")
    return ", ".join(reasons) or "out of its limits"


def _stage_failure(stage: StageParity, tolerance: Tolerance) -> str:
    limit = f"at most {tolerance.stage_relative_l2:g} is allowed"
    if not stage.deviation.finite:
        return f"stage {stage.stage}: values that are not finite"
    if stage.deviation.relative_l2 is None:
        return f"stage {stage.stage}: the reference is 0 throughout, and it is not"
    return f"stage {stage.stage}: relative L2 {stage.deviation.relative_l2:.2e}, {limit}"


def why_failed(candidate: CandidateParity) -> str:
    """A candidate that failed, with the file, every figure that is out and its limit, in one line.

    Args:
        candidate: Its status is ``failed``.
    """
    name = titled(candidate.name, candidate.graph)
    what = [
        f"{output.name}: {_output_failure(output, candidate.tolerance)}"
        for output in candidate.outputs
        if output.status is Status.FAILED
    ]
    what += [
        _stage_failure(stage, candidate.tolerance)
        for stage in candidate.stages
        if stage.status is Status.FAILED
    ]
    if candidate.first_bad_block is not None:
        what.append(f"first out at {candidate.first_bad_block}")
    where = f" ({candidate.file})" if candidate.file is not None else ""
    return f"{name}{where}, {'; '.join(what) or 'no output to compare'}"


def stored_parity(bundle: Bundle, kind: str = "parity") -> ParityResult | None:
    """A bundle's stored parity; None where it holds none of that kind.

    Args:
        bundle: Open.
        kind: ``parity``, or the ``parity_kind`` of an engine.

    Raises:
        BundleIntegrityError: Its file was changed.
        BundleError: Its file is no valid record.
    """
    record = bundle.manifest.results.get(kind)
    if record is None:
        return None
    text, remedy = "", "Measure it anew: `riformer-deploy verify parity`."
    try:
        text = bundle.path_of(record).read_text(encoding="utf-8")
        return load_json(ParityResult, text)
    except (RecordError, UnicodeDecodeError) as err:
        version = schema_of(text, "schema")
        if version is not None and version != RESULT_SCHEMA:
            raise BundleError(
                f"{bundle.directory / record.path} is of schema {version}; this toolkit reads schema "
                f"{RESULT_SCHEMA}.",
                remedy=remedy,
            ) from err
        raise BundleError(
            f"{bundle.directory / record.path} is no valid result: {err}", remedy=remedy
        ) from err


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


def stored_verdicts(bundle: Bundle) -> dict[tuple[CandidateConfig, str], Status]:
    """What the bundle's stored parity says of each way of running each file.

    Args:
        bundle: Open.

    Returns:
        By config and sha256 of the file; empty where nothing is stored or what is stored cannot be read.
    """
    kinds = ["parity", *(engine.parity_kind for engine in bundle.manifest.engines)]
    try:
        stored = [stored_parity(bundle, kind) for kind in kinds]
    except BundleError:  # warn_of_failures says so, and a latency needs no parity
        return {}
    return {(c.config, c.artifact_sha256): c.status for one in stored if one for c in one.candidates}


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
