"""The report of parity: which images and models take part, and what of it is kept where."""

from __future__ import annotations

import dataclasses
from pathlib import Path

__all__ = [
    "MODELS",
    "GpuOptions",
    "ParityResult",
    "Status",
    "changed_tolerances",
    "measure_parity",
    "results_by_kind",
    "synthetic_inputs",
    "verify_bundle",
]

import numpy as np

from riformer_deploy.backends.base import Skipped
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_candidates import GpuOptions, config_of
from riformer_deploy.backends.stored_models import reference
from riformer_deploy.bundle.results import recording_failures, store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, InputForm, Precision, RuntimeKind
from riformer_deploy.common.errors import (
    OptionError,
)
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.data.synthetic import synthetic_pixels
from riformer_deploy.data.transforms import Images, normalize, pixels_of
from riformer_deploy.evaluation.parity import ParityTask, verify_parity
from riformer_deploy.evaluation.results import (
    CandidateParity,
    InputImages,
    ParityResult,
    Status,
    files_status,
)
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance, changed_tolerances

PARITY_BATCHES = (2, 1, 3, 8)
"""Batches that a dynamic graph must take, one file for all; stages are compared on the first."""
PARITY_SEED = 20230406
_FEWEST_IMAGES = 8
"""A graph of fixed batch runs as often as it takes to see so many."""


def synthetic_inputs(size: tuple[int, int], batches: tuple[int, ...], seed: int) -> InputImages:
    """The record of synthetic images.

    Args:
        size: Height and width, pixels.
        batches: Sizes of the batches, in order.
        seed: Of their generator.
    """
    return InputImages(
        description="synthetic, normalised: white noise and smooth waves in turn",
        image_size_px=size,
        batches=batches,
        seed=seed,
    )


MODELS = (Group.TORCH, Group.ONNX, Group.OPENVINO)
"""What the parity report of an export covers."""
PARITY_GROUPS = (*MODELS, Group.ENGINE)
"""What a parity report covers."""


def _stored(bundle: Bundle) -> Images | None:
    """The bundle's own samples; None where it has none, or a graph takes pictures and they are not."""
    model, samples = bundle.manifest.model, bundle.manifest.samples
    if samples is None:
        return None
    stored: Images = np.load(bundle.path_of(samples), allow_pickle=False)
    if any(artifact.lowering.input_form == InputForm.UINT8 for artifact in bundle.manifest.onnx):
        try:
            pixels_of(stored, model.preprocessing)
        except OptionError:
            return None
    return stored


def _parity_images(bundle: Bundle, batches: tuple[int, ...], seed: int) -> tuple[Images, InputImages]:
    """The bundle's own samples where it has enough of them, else synthetic images."""
    size, count, stored = bundle.manifest.model.preprocessing.crop_px, sum(batches), _stored(bundle)
    if stored is not None and len(stored) >= count:
        inputs = InputImages(
            description="calibration images of the bundle", image_size_px=size, batches=batches, seed=None
        )
        return np.ascontiguousarray(stored[:count]), inputs
    pixels = synthetic_pixels(count, size, seed=seed)
    return normalize(pixels, bundle.manifest.model.preprocessing), synthetic_inputs(size, batches, seed)


def measure_parity(
    bundle: Bundle,
    tolerances: dict[Precision, Tolerance],
    progress: Progress = silent,
    *,
    seed: int = PARITY_SEED,
    gpu: GpuOptions | None = None,
    groups: tuple[Group, ...] = PARITY_GROUPS,
) -> ParityResult:
    """Compare everything that a bundle holds with its reference, on its own samples or synthetic images.

    Args:
        bundle: Open, or still staged.
        tolerances: Limits by precision.
        progress: Called with each step.
        seed: Of the images.
        gpu: How engines are run; None means the defaults.
        groups: What is compared.

    Raises:
        BundleIntegrityError: A file is not the one that was recorded.
        RuntimeFailureError: A model cannot be loaded or run.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    manifest = bundle.manifest
    fixed = [artifact.batch for artifact in manifest.onnx if artifact.batch is not None]
    batches = (fixed[0],) * -(-_FEWEST_IMAGES // fixed[0]) if fixed else PARITY_BATCHES
    images, inputs = _parity_images(bundle, batches, seed)
    selected = select_candidates(bundle, groups, gpu=gpu)
    task = ParityTask(
        reference=reference(bundle),
        candidates=selected.candidates,
        tolerances=tolerances,
        blocks=manifest.model.architecture.block_names,
        images=images,
        inputs=inputs,
        skipped=selected.skipped,
    )
    result = verify_parity(task, progress)
    ran = {candidate.artifact_sha256 for candidate in result.candidates}
    unverified = tuple(config_of(e, graphs=False) for e in manifest.engines if e.file.sha256 not in ran)
    return dataclasses.replace(result, unverified=unverified)


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
) -> ParityResult:
    """``verify parity``: compare a bundle's artifacts with its reference, and store the result in it.

    Args:
        directory: The bundle.
        tolerances: Limits by precision; None means the default table.
        progress: Called with each step.
        gpu: How engines are run; None means the defaults.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        RuntimeFailureError: A model cannot be run.
    """
    bundle = Bundle.open(Path(directory))
    result = measure_parity(bundle, TOLERANCES if tolerances is None else tolerances, progress, gpu=gpu)
    # A result under limits of the user's own never takes the place of that under the default ones.
    if any(c.tolerance.stated != "default" for c in result.candidates):
        kinds = {"parity-user": result}
    else:
        kinds = results_by_kind(bundle, result)
    for kind, part in kinds.items():
        with recording_failures(kind):
            store_result(bundle, kind, part)
    return result
