"""The parity that a bundle keeps."""

from __future__ import annotations

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import RecordError, load_json, schema_of
from riformer_deploy.evaluation.evidence import contradictions
from riformer_deploy.evaluation.results import RESULT_SCHEMA, ParityResult, Status


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
