"""What a parity report compares with: its images, and the reference's outputs on them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.pytorch_candidates import available, reference
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.common.dependencies import PACKAGES
from riformer_deploy.common.enums import InputForm
from riformer_deploy.common.errors import MissingDependencyError, OptionError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.data.synthetic import synthetic_pixels
from riformer_deploy.data.transforms import Images, normalize, pixels_of
from riformer_deploy.evaluation.reference_outputs import (
    SAME_RELATIVE_L2,
    TAPPED,
    ReferenceOutputs,
    StoredReference,
    digest_of,
    load_samples,
    run_reference,
)
from riformer_deploy.evaluation.results import (
    InputImages,
)
from riformer_deploy.model.architecture import map_name

_LOG = logging.getLogger(__name__)

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


def _stored(bundle: Bundle) -> Images | None:
    """The bundle's own samples; None where it has none, or a graph takes pictures and they are not."""
    model, samples = bundle.manifest.model, bundle.manifest.samples
    if samples is None:
        return None
    stored = load_samples(bundle, samples)
    if any(artifact.lowering.input_form == InputForm.UINT8 for artifact in bundle.manifest.onnx):
        try:
            pixels_of(stored, model.preprocessing)
        except OptionError:
            return None
    return stored


@dataclass(frozen=True, kw_only=True)
class ParityReference:
    """The images of a parity report and what the reference gives on them.

    Attributes:
        images: (N, 3, H, W) float32, normalised.
        pixels: These as pictures, (N, H, W, 3) uint8; None where they are the bundle's samples.
        inputs: Where they come from and how they are split.
        outputs: The reference's.
        stored: Whether these were read from the bundle, since PyTorch is not installed.
        stored_relative_l2: Distance of what the bundle keeps from them; None where there are not both.
    """

    images: Images
    pixels: NDArray[np.uint8] | None
    inputs: InputImages
    outputs: ReferenceOutputs
    stored: bool
    stored_relative_l2: float | None

    def stage(self, staged: Path, parent_sha256: str) -> FileRecord:
        """Write the outputs for a bundle to keep.

        Args:
            staged: The folder.
            parent_sha256: Of the reference weights' file.
        """
        path = staged / "reference.npz"
        StoredReference(outputs=self.outputs, images_sha256=digest_of(self.images), pixels=self.pixels).save(
            path
        )
        return record_file(path, parent_sha256)


def _parity_images(
    bundle: Bundle, seed: int, kept: NDArray[np.uint8] | None
) -> tuple[Images, NDArray[np.uint8] | None, InputImages]:
    """The bundle's own samples where it has enough, else the synthetic pictures that it keeps or new ones."""
    manifest = bundle.manifest
    fixed = [artifact.batch for artifact in manifest.onnx if artifact.batch is not None]
    batches = (fixed[0],) * -(-_FEWEST_IMAGES // fixed[0]) if fixed else PARITY_BATCHES
    size, count, stored = manifest.model.preprocessing.crop_px, sum(batches), _stored(bundle)
    if stored is not None and len(stored) >= count:
        inputs = InputImages(
            description="calibration images of the bundle", image_size_px=size, batches=batches, seed=None
        )
        return np.ascontiguousarray(stored[:count]), None, inputs
    if seed != PARITY_SEED or kept is None or kept.shape != (count, *size, 3):
        kept = synthetic_pixels(count, size, seed=seed)
    images = normalize(kept, manifest.model.preprocessing)
    return images, kept, synthetic_inputs(size, batches, seed)


def parity_reference(
    bundle: Bundle, progress: Progress = silent, *, seed: int = PARITY_SEED
) -> ParityReference:
    """Run the reference on the images of a parity report, or read what it gave from the bundle.

    Where PyTorch is installed the reference is run, and that the bundle keeps something else is warned of.

    Args:
        bundle: Open, or still staged.
        progress: Called with each step.
        seed: Of synthetic images.

    Raises:
        BundleIntegrityError: A file is not the one that was recorded.
        MissingDependencyError: PyTorch is not installed, and the bundle keeps no outputs on these images.
        RuntimeFailureError: The reference cannot be run, or gives values that are not finite.
    """
    record = bundle.manifest.reference_outputs
    stored = None if record is None else StoredReference.load(bundle.place_of(record), bundle.read(record))
    images, pixels, inputs = _parity_images(bundle, seed, None if stored is None else stored.pixels)
    kept = stored.outputs if stored is not None and stored.images_sha256 == digest_of(images) else None
    candidate = reference(bundle)
    progress(candidate.name)
    if not available([candidate]).candidates:
        needed = set(map(map_name, bundle.manifest.out_indices))
        if kept is None or needed - kept.outputs.keys():
            raise MissingDependencyError(
                f"PyTorch, which runs the reference, is not installed, and {bundle.directory} keeps no "
                "outputs of the reference on these images.",
                remedy=f"Run: {PACKAGES['torch'].install_command}, or export the bundle again elsewhere.",
            )
        if not kept.stages:
            _LOG.warning("the bundle keeps no stages of the reference: without PyTorch none are judged")
        return ParityReference(
            images=images, pixels=pixels, inputs=inputs, outputs=kept, stored=True, stored_relative_l2=None
        )
    blocks = bundle.manifest.model.architecture.block_names
    outputs = run_reference(candidate, images, images[: min(TAPPED, inputs.batches[0])], blocks)
    distance = None if kept is None else kept.relative_l2_from(outputs)
    if distance is not None and distance > SAME_RELATIVE_L2:
        _LOG.warning(
            "the reference's outputs that the bundle keeps are not those computed here: relative L2 %.1e, at "
            "most %.0e comes of another order of summing; a machine without PyTorch would judge by them",
            distance,
            SAME_RELATIVE_L2,
        )
    return ParityReference(
        images=images,
        pixels=pixels,
        inputs=inputs,
        outputs=outputs,
        stored=False,
        stored_relative_l2=distance if distance is not None and np.isfinite(distance) else None,
    )
