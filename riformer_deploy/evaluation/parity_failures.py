"""Parity that failed: why in words, and what a bundle's stored parity says of a model."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.graph_state import titled
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.errors import (
    BundleError,
)
from riformer_deploy.common.serialization import RecordError, load_json, schema_of
from riformer_deploy.evaluation.evidence import contradictions
from riformer_deploy.evaluation.metrics import Deviation
from riformer_deploy.evaluation.reference_outputs import MAPS
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    CandidateParity,
    OutputParity,
    ParityResult,
    Status,
)
from riformer_deploy.evaluation.tolerances import Tolerance

_LOG = logging.getLogger(__name__)


def _output_failure(output: OutputParity, tolerance: Tolerance) -> str:
    """The figures of an output that are out, each with its limit."""
    distance = output.deviation
    if output.name in MAPS:
        return _map_failure(distance, tolerance)
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


def _map_failure(distance: Deviation, tolerance: Tolerance) -> str:
    """What is out of a map or a stage, with its limit."""
    if not distance.finite:
        return "values that are not finite"
    if distance.relative_l2 is None:
        return "the reference is 0 throughout, and it is not"
    return f"relative L2 {distance.relative_l2:.2e}, at most {tolerance.stage_relative_l2:g} is allowed"


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
        f"stage {stage.stage}: {_map_failure(stage.deviation, candidate.tolerance)}"
        for stage in candidate.stages
        if stage.status is Status.FAILED
    ]
    if candidate.first_bad_block is not None:
        what.append(f"first out at {candidate.first_bad_block}")
    where = f" ({candidate.file})" if candidate.file is not None else ""
    return f"{name}{where}, {'; '.join(what) or 'no output to compare'}"


def advice_on(result: ParityResult, lowerings: Sequence[LoweringConfig] = ()) -> tuple[str, ...]:
    """What to do about files that failed; nothing where none did.

    Args:
        result: A parity report.
        lowerings: Those of the graphs that it is about, where they were just made.
    """
    failed = [candidate for candidate in result.failed if candidate.judges_file]
    plain = [c for c in failed if (c.runtime, c.precision) == (RuntimeKind.PYTORCH, Precision.FP32)]
    drawn = {
        config.precision
        for config in lowerings
        if config.precision.is_quantized and config.calibration is not None and config.calibration.random
    }
    unreal = sorted({candidate.precision for candidate in failed} & drawn)
    height, width = result.inputs.image_size_px
    advice = []
    if plain:
        advice.append(
            f"{plain[0].name}, itself misses the tolerance at {height}x{width} px, so no file can hold it: "
            "float32 loses that much with these weights. Export at the size that they were trained on "
            "(--image-size); where that is this one, loosen --rtol, --atol or --stage-tolerance"
        )
    if unreal:
        advice.append(
            f"{' and '.join(unreal)} was calibrated on random images, whose ranges are not those of real "
            "ones: give --calibration FOLDER or FILE.npz with pictures like those to come, on which parity "
            "then runs, too. For timings alone, accept it with --sqnr-tolerance and --stage-tolerance"
        )
    elif failed and result.inputs.seed is not None:
        advice.append(
            "parity ran on synthetic images, which can be far from what the model was trained on; an export "
            "with --calibration FOLDER or FILE.npz gives it real ones"
        )
    return tuple(advice)


def stored_parity(bundle: Bundle, kind: str = "parity") -> ParityResult | None:
    """A bundle's stored parity; None where it holds none of that kind.

    Args:
        bundle: Open.
        kind: ``parity``, or the ``parity_kind`` of an engine.

    Raises:
        BundleIntegrityError: Its file was changed.
        BundleError: Its file is no valid record, or its verdicts do not follow from its figures.
    """
    record = bundle.manifest.results.get(kind)
    if record is None:
        return None
    text, remedy = "", "Measure it anew: `riformer-deploy verify parity`."
    path = bundle.place_of(record)
    try:
        text = bundle.text(record)
        result = load_json(ParityResult, text)
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
    if wrong := contradictions(result):
        raise BundleError(f"{path} is no valid result: it contradicts itself.", details=wrong, remedy=remedy)
    return result


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
