"""Proves and times a bundle, and keeps the evidence in it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from riformer_deploy import lineup
from riformer_deploy.artifacts import Manifest, Precision
from riformer_deploy.bench import BenchOptions, measure_latency
from riformer_deploy.budgets import BUDGETS, Budget
from riformer_deploy.bundles import Bundle, record_file, staging, update
from riformer_deploy.errors import BundleChangedError, BundleError, OptionError
from riformer_deploy.images import normalise, pixels_of, synthetic_pixels
from riformer_deploy.plans import InputForm
from riformer_deploy.progress import Progress, silent
from riformer_deploy.records import dump_json
from riformer_deploy.results import Inputs, LatencyResult, ParityResult
from riformer_deploy.runtimes.base import Images
from riformer_deploy.verify import ParityTask, verify_parity

_LOG = logging.getLogger(__name__)

PARITY_BATCHES = (2, 1, 3, 8)
"""Batches that a dynamic graph must take, one file for all; stages are compared on the first."""
PARITY_SEED = 20230406
_FEWEST_IMAGES = 8
"""A graph of fixed batch runs as often as it takes to see so many."""


def _synthetic(size: tuple[int, int], batches: tuple[int, ...], seed: int) -> Inputs:
    return Inputs(
        description="synthetic, normalised: white noise and smooth waves in turn",
        image_size_px=size,
        batches=batches,
        seed=seed,
    )


_PROVEN = (lineup.Group.TORCH, lineup.Group.ONNX, lineup.Group.OPENVINO)


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


def _proof_images(bundle: Bundle, batches: tuple[int, ...], seed: int) -> tuple[Images, Inputs]:
    """The bundle's own samples where it has enough of them, else synthetic images."""
    size, count, stored = bundle.manifest.model.preprocessing.crop_px, sum(batches), _stored(bundle)
    if stored is not None and len(stored) >= count:
        inputs = Inputs(
            description="calibration images of the bundle", image_size_px=size, batches=batches, seed=None
        )
        return np.ascontiguousarray(stored[:count]), inputs
    pixels = synthetic_pixels(count, size, seed=seed)
    return normalise(pixels, bundle.manifest.model.preprocessing), _synthetic(size, batches, seed)


def prove_parity(
    bundle: Bundle, budgets: dict[Precision, Budget], progress: Progress = silent, *, seed: int = PARITY_SEED
) -> ParityResult:
    """Compare everything that a bundle holds with its reference, on its own samples or synthetic images.

    Args:
        bundle: Open, or still staged.
        budgets: Limits by precision.
        progress: Told of each step.
        seed: Of the images.

    Raises:
        BundleIntegrityError: A file is not the one that was recorded.
        RuntimeFailureError: A model cannot be loaded or run.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    manifest = bundle.manifest
    fixed = [artifact.batch for artifact in manifest.onnx if artifact.batch is not None]
    batches = (fixed[0],) * -(-_FEWEST_IMAGES // fixed[0]) if fixed else PARITY_BATCHES
    images, inputs = _proof_images(bundle, batches, seed)
    task = ParityTask(
        reference=lineup.reference(bundle),
        candidates=lineup.contestants(bundle, _PROVEN),
        budgets=budgets,
        blocks=manifest.model.architecture.block_names,
        images=images,
        inputs=inputs,
        skipped=lineup.left_out(bundle, _PROVEN),
    )
    return verify_parity(task, progress)


@contextlib.contextmanager
def _recording_failures(what: str) -> Iterator[None]:
    """A result that was measured is given to the user even where it cannot be stored."""
    try:
        yield
    except BundleChangedError:
        raise
    except (OSError, BundleError) as err:
        _LOG.warning("the %s result could not be stored in the bundle: %s", what, err)


def store_result(bundle: Bundle, kind: str, result: ParityResult | LatencyResult) -> None:
    """Put a result into the bundle, in place of the last one of its kind.

    Args:
        bundle: Open.
        kind: ``parity``, ``parity-user`` (limits of the user's own) or ``latency``; the file's name.
        result: What was measured.

    Raises:
        BundleError: The bundle cannot be written.
    """
    with staging(bundle.directory) as staged:
        path = staged / f"{kind}.json"
        path.write_text(dump_json(result), encoding="utf-8")
        record = record_file(path, bundle.manifest.weights[0].file.sha256)

        def add(current: Manifest) -> Manifest:
            if (current.onnx, current.weights) != (bundle.manifest.onnx, bundle.manifest.weights):
                raise BundleChangedError(
                    f"The bundle {bundle.directory} was exported anew while its old models were being "
                    f"measured; the {kind} result is not of what it holds now.",
                    remedy="Run the command again.",
                )
            return dataclasses.replace(current, results={**current.results, kind: record})

        update(bundle.directory, staged, add)


def verify_bundle(
    directory: Path | str, budgets: dict[Precision, Budget] | None = None, progress: Progress = silent
) -> ParityResult:
    """``verify parity``: prove a bundle again, and store the result in it.

    Args:
        directory: The bundle.
        budgets: Limits by precision; None means the default table.
        progress: Told of each step.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        RuntimeFailureError: A model cannot be run.
    """
    bundle = Bundle.open(Path(directory))
    result = prove_parity(bundle, BUDGETS if budgets is None else budgets, progress)
    # Evidence under limits of the user's own never takes the place of that under the default ones.
    kind = "parity" if all(c.budget.stated == "default" for c in result.candidates) else "parity-user"
    with _recording_failures(kind):
        store_result(bundle, kind, result)
    return result


def bench_bundle(
    directory: Path | str,
    groups: tuple[lineup.Group, ...] = (
        lineup.Group.TORCH,
        lineup.Group.COMPILED,
        lineup.Group.ONNX,
        lineup.Group.OPENVINO,
    ),
    options: BenchOptions | None = None,
    progress: Progress = silent,
) -> LatencyResult:
    """``bench``: time a bundle's models side by side, and store the result in it.

    Args:
        directory: The bundle.
        groups: Which contestants.
        options: How to measure; None means the defaults.
        progress: Told of each step.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        RuntimeFailureError: Nothing could be measured.
        MissingDependencyError: A contestant's backend is not installed.
    """
    options = options or BenchOptions()
    bundle = Bundle.open(Path(directory))
    size = bundle.manifest.model.preprocessing.crop_px
    pixels = synthetic_pixels(max(options.batches), size, seed=options.seed)
    images = normalise(pixels, bundle.manifest.model.preprocessing)
    inputs = _synthetic(size, options.batches, options.seed)
    entered = lineup.contestants(bundle, groups, threads=options.used_threads)
    threads = torch.get_num_threads()
    try:
        result = measure_latency(
            entered, images, inputs, options, skipped=lineup.left_out(bundle, groups), progress=progress
        )
    finally:
        torch.set_num_threads(threads)
    with _recording_failures("latency"):
        store_result(bundle, "latency", result)
    return result
