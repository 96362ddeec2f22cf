"""`verify parity`: what takes part in a bundle's parity report, and what of it is kept where."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "MODELS",
    "PARITY_GROUPS",
    "GpuOptions",
    "ParityResult",
    "Status",
    "advice_on",
    "changed_tolerances",
    "measure_parity",
    "results_by_kind",
    "synthetic_inputs",
    "verify_bundle",
]


from riformer_deploy.api.parity_reference import ParityReference, parity_reference, synthetic_inputs
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_candidates import config_of
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.backends.pytorch_candidates import reference
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.bundle.results import recording_failures, store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision, RuntimeKind
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.evaluation.parity import ParityTask, verify_parity
from riformer_deploy.evaluation.parity_failures import advice_on
from riformer_deploy.evaluation.results import (
    CandidateParity,
    ParityResult,
    Status,
    files_status,
)
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance, changed_tolerances

_LOG = logging.getLogger(__name__)

MODELS = (Group.TORCH, Group.ONNX, Group.OPENVINO)
"""What the parity report of an export covers."""
PARITY_GROUPS = (*MODELS, Group.ENGINE)
"""What a parity report covers."""


def measure_parity(
    bundle: Bundle,
    tolerances: dict[Precision, Tolerance],
    progress: Progress = silent,
    *,
    expected: ParityReference | None = None,
    gpu: GpuOptions | None = None,
    groups: tuple[Group, ...] = PARITY_GROUPS,
    precisions: Sequence[Precision] = (),
) -> ParityResult:
    """Compare everything that a bundle holds with its reference, on its own samples or synthetic images.

    Args:
        bundle: Open, or still staged.
        tolerances: Limits by precision.
        progress: Called with each step.
        expected: What the reference gives; None runs it.
        gpu: How engines are run; None means the defaults.
        groups: What is compared.
        precisions: Of graphs and engines; none for every one.

    Raises:
        BundleIntegrityError: A file is not the one that was recorded, or not what the manifest describes.
        RuntimeFailureError: A model cannot be loaded or run.
        MissingDependencyError: ONNX Runtime is not installed; or PyTorch, where the bundle keeps no
            outputs of the reference.
    """
    manifest = bundle.manifest
    selected = select_candidates(bundle, groups, gpu=gpu, precisions=precisions)
    expected = expected or parity_reference(bundle, progress)
    task = ParityTask(
        reference=reference(bundle),
        candidates=selected.candidates,
        tolerances=tolerances,
        blocks=manifest.model.architecture.block_names,
        images=expected.images,
        inputs=expected.inputs,
        skipped=selected.skipped,
        expected=expected.outputs,
        bisect=not expected.stored,
    )
    result = verify_parity(task, progress)
    ran = {candidate.artifact_sha256 for candidate in result.candidates}
    unverified = tuple(config_of(e, graphs=False) for e in manifest.engines if e.file.sha256 not in ran)
    return dataclasses.replace(
        result,
        unverified=unverified,
        reference_stored=expected.stored,
        stored_reference_relative_l2=expected.stored_relative_l2,
    )


def results_by_kind(bundle: Bundle, result: ParityResult) -> dict[str, ParityResult]:
    """A result in parts: that of the models, and one for each engine, which only its own GPU can renew.

    Args:
        bundle: The bundle that was verified.
        result: Of one run.

    Returns:
        By kind: ``parity``, and ``EngineArtifact.parity_kind`` of each engine that ran.
    """
    engines = {engine.file.sha256: engine for engine in bundle.manifest.engines}
    models = tuple(c for c in result.candidates if c.artifact_sha256 not in engines)
    missed = tuple(item for item in result.skipped if item.config.runtime is not RuntimeKind.TENSORRT)
    parts = {"parity": _part(result, models, missed)} if models else {}
    for sha256, engine in engines.items():
        if ways := tuple(c for c in result.candidates if c.artifact_sha256 == sha256):
            parts[engine.parity_kind] = _part(result, ways, ())
    return parts


def _part(
    result: ParityResult, candidates: tuple[CandidateParity, ...], skipped: tuple[Skipped, ...]
) -> ParityResult:
    return dataclasses.replace(
        result, candidates=candidates, skipped=skipped, status=files_status(candidates), unverified=()
    )


def verify_bundle(
    directory: Path | str,
    tolerances: dict[Precision, Tolerance] | None = None,
    progress: Progress = silent,
    *,
    gpu: GpuOptions | None = None,
    groups: tuple[Group, ...] = PARITY_GROUPS,
    precisions: Sequence[Precision] = (),
) -> ParityResult:
    """``verify parity``: compare a bundle's artifacts with its reference, and store the result in it.

    A part of the models, by ``groups`` or ``precisions``, is compared but does not take the place of the
    stored result, which would lose the verdict on the others; engines have results of their own.

    Args:
        directory: The bundle.
        tolerances: Limits by precision; None means the default table.
        progress: Called with each step.
        gpu: How engines are run; None means the defaults.
        groups: What is compared.
        precisions: Of graphs and engines; none for every one.

    Raises:
        BundleError: It is not a bundle, a file was changed, or it holds no model in a precision.
        RuntimeFailureError: A model cannot be run.
    """
    bundle = Bundle.open(Path(directory))
    result = measure_parity(
        bundle,
        TOLERANCES if tolerances is None else tolerances,
        progress,
        gpu=gpu,
        groups=groups,
        precisions=precisions,
    )
    # A result under limits of the user's own never takes the place of that under the default ones.
    if any(c.tolerance.stated != "default" for c in result.candidates):
        kinds = {"parity-user": result}
    else:
        kinds = results_by_kind(bundle, result)
        if (precisions or not set(MODELS) <= set(groups)) and kinds.pop("parity", None) is not None:
            _LOG.warning("the parity of a part of the models was not stored: what the bundle holds stays")
    for kind, part in kinds.items():
        with recording_failures(kind):
            store_result(bundle, kind, part)
    return result
