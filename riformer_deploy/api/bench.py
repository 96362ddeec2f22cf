"""`bench`: a bundle's models timed side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from riformer_deploy.api.parity import synthetic_inputs
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.bundle.results import recording_failures
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import (
    EngineUnfitError,
)
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.data.synthetic import synthetic_pixels
from riformer_deploy.data.transforms import normalize
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.failed_candidates import warn_of_failures
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.latency_sessions import store_session
from riformer_deploy.evaluation.results import (
    LatencyResult,
)
from riformer_deploy.evaluation.stored_parity import stored_verdicts

__all__ = [
    "BenchOptions",
    "GpuOptions",
    "LatencyResult",
    "bench_bundle",
]


DEFAULT_GROUPS = tuple(group for group in Group if group is not Group.COMPILED)
"""Everything but ``torch.compile`` on the CPU, which compiles for minutes and is seldom faster there."""


def bench_bundle(
    directory: Path | str,
    groups: tuple[Group, ...] = DEFAULT_GROUPS,
    options: BenchOptions | None = None,
    progress: Progress = silent,
    *,
    gpu: GpuOptions | None = None,
    precisions: Sequence[Precision] = (),
    tell: Progress = silent,
) -> LatencyResult:
    """``bench``: time a bundle's models side by side, and store the result in it.

    Earlier results stay beside it where they hold what was not measured again.

    Args:
        directory: The bundle.
        groups: Which candidates; by default all but ``torch.compile`` on the CPU.
        options: How to measure; None means the defaults.
        progress: Called with each step.
        gpu: How engines are run; None means the defaults.
        precisions: Of graphs and engines; none for every one. PyTorch's float32 stays, since they
            are compared with it.
        tell: Called with what stays of earlier results, and what is dropped.

    Raises:
        BundleError: It is not a bundle, a file was changed, or it holds no engine where ``gpu`` requires
            one.
        EngineUnfitError: Engines alone were asked for, and none fits this machine.
        RuntimeFailureError: Nothing could be measured.
        MissingDependencyError: A candidate's backend is not installed.
    """
    options = options or BenchOptions()
    bundle = Bundle.open(Path(directory))
    size = bundle.manifest.model.preprocessing.crop_px
    pixels = synthetic_pixels(max(options.batches), size, seed=options.seed)
    images = normalize(pixels, bundle.manifest.model.preprocessing)
    inputs = synthetic_inputs(size, options.batches, options.seed)
    engines = {engine.file.sha256 for engine in bundle.manifest.engines}
    selected = select_candidates(
        bundle, groups, threads=options.used_threads, gpu=gpu, precisions=precisions, modules=False
    )
    alone = set(groups) <= {Group.ENGINE, Group.GPU}
    if alone and not any(candidate.artifact_sha256 in engines for candidate in selected.candidates):
        raise EngineUnfitError(
            "No engine of the bundle can run on this machine.",
            details=[f"{item.name}: {item.reason}" for item in selected.skipped],
        )
    warn_of_failures(bundle, selected.candidates)
    result = measure_latency(
        selected.candidates, images, inputs, options, skipped=selected.skipped, progress=progress
    )
    verdicts = stored_verdicts(bundle)
    samples = tuple(
        dataclasses.replace(item, parity=verdicts.get((item.config, item.artifact_sha256)))
        for item in result.samples
    )
    result = dataclasses.replace(result, samples=samples)
    with recording_failures("latency"):
        store_session(bundle, result, tell)
    return result
