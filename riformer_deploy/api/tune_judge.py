"""Builds configs and measures them on the target: the judge of ``tune``'s search."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from riformer_deploy.api.tune_artifacts import ArtifactBuilder, TuneSetup
from riformer_deploy.backends.base import Candidate, Outputs
from riformer_deploy.backends.pytorch_candidates import reference, weights_candidate
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Role
from riformer_deploy.common.errors import (
    EngineBuildError,
    EngineUnfitError,
    ExportError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.data.synthetic import synthetic_pixels
from riformer_deploy.data.transforms import Images, normalize
from riformer_deploy.evaluation.accuracy import AccuracyTask, measure_accuracy
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.metrics import decisions
from riformer_deploy.evaluation.reference_outputs import run_batches
from riformer_deploy.evaluation.results import InputImages, Status, Timing
from riformer_deploy.evaluation.tensor_comparison import compare_outputs
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.quantization.search_records import Judge, Judged, Lane, Timed

_UNUSABLE = (ExportError, OptionError, EngineBuildError, EngineUnfitError, RuntimeFailureError)
"""What says that a config cannot be built or run; anything else ends the search."""
_JUDGED_IMAGES = 64
"""Calibration images that accuracy is judged on, at most."""
_CHUNK = 8
_LABEL = "trial "


class LiveJudge(Judge):
    """Exports, builds, runs and times.

    Args:
        setup: What configs are built of and judged on.
        work: An empty folder for what is built.
        progress: Called with each step.

    Attributes:
        builder: Of the artifacts.
    """

    def __init__(self, setup: TuneSetup, work: Path, progress: Progress = silent) -> None:
        self._setup, self._progress = setup, progress
        self.builder = ArtifactBuilder(setup, work, progress)

    @override
    def judge(self, config: LoweringConfig) -> Judged:
        start = time.monotonic()
        try:
            found = self._judged(config)
        except _UNUSABLE as err:
            found = Judged(spent_s=0.0, failure="; ".join((err.message, *err.details)))
        return dataclasses.replace(found, spent_s=time.monotonic() - start)

    @override
    def race(self, configs: Mapping[int, LoweringConfig], seconds: float) -> Timed:
        start = time.monotonic()
        candidates: list[Candidate] = []
        failures: dict[str, str] = {}
        for number, config in configs.items():
            try:
                candidate = self.builder.candidate(self.builder.built(config))
            except _UNUSABLE as err:
                failures[str(number)] = err.message
                continue
            role = Role.CANDIDATE if candidates else Role.BASELINE
            label = dataclasses.replace(candidate.config, label=f"{_LABEL}{number}")
            candidates.append(dataclasses.replace(candidate, config=label, role=role))
        lanes: tuple[Lane, ...] = ()
        if candidates:
            lanes, failed = self._timed(candidates, seconds)
            failures |= failed
        return Timed(spent_s=time.monotonic() - start, lanes=lanes, failures=failures)

    def _timed(self, candidates: list[Candidate], seconds: float) -> tuple[tuple[Lane, ...], dict[str, str]]:
        options = BenchOptions(
            batches=self._setup.batches, max_seconds=seconds, threads=self._setup.threads, warmup=2
        )
        images, inputs = self._timing_images
        try:
            result = measure_latency(candidates, images, inputs, options, progress=self._progress)
        except RuntimeFailureError as err:  # nobody came to the end
            why = "; ".join((err.message, *err.details))
            return (), {candidate.name.removeprefix(_LABEL): why for candidate in candidates}
        failures = {item.name.removeprefix(_LABEL): item.reason for item in result.skipped}
        timings = {sample.timing for sample in result.samples}
        compared = Timing.COMPUTE if Timing.COMPUTE in timings else Timing.CALL
        lanes = tuple(
            Lane(trial=int(number), batch=sample.batch, samples_ms=sample.samples_ms)
            for sample in result.samples
            if sample.timing is compared and (number := sample.name.removeprefix(_LABEL)) not in failures
        )
        return lanes, failures

    @cached_property
    def _timing_images(self) -> tuple[Images, InputImages]:
        size = self._setup.bundle.manifest.model.preprocessing.crop_px
        pixels = synthetic_pixels(max(self._setup.batches), size, seed=0)
        images = normalize(pixels, self._setup.bundle.manifest.model.preprocessing)
        inputs = InputImages(description="synthetic", image_size_px=size, batches=self._setup.batches, seed=0)
        return images, inputs

    @cached_property
    def _judged_images(self) -> Images:
        return np.ascontiguousarray(self._setup.images.spread(_JUDGED_IMAGES))

    @property
    def _chunks(self) -> list[int]:
        count = len(self._judged_images)
        return [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]

    @cached_property
    def _reference(self) -> Outputs:
        """What the float64 reference gives on the judged images."""
        candidate = reference(self._setup.bundle)
        self._progress(f"running {candidate.name}")
        runtime = candidate.open()
        try:
            return run_batches(runtime, self._judged_images, self._chunks)
        finally:
            runtime.close()

    @cached_property
    def _reference_right(self) -> NDArray[np.bool_]:
        """Which labelled pictures PyTorch in float32 gets right."""
        weights = self._setup.bundle.manifest.reference
        return self._right(
            weights_candidate(
                self._setup.bundle, weights, weights.form, compiled=False, threads=self._setup.threads
            )
        )

    @property
    def reference_top1_percent(self) -> float | None:
        """Top-1 of the reference on the labelled pictures; None where there are none."""
        return None if self._setup.dataset is None else 100 * float(self._reference_right.mean())

    def _right(self, candidate: Candidate) -> NDArray[np.bool_]:
        """Which labelled pictures a candidate gets right, (N,); those that cannot be used are left out."""
        setup = self._setup
        if setup.dataset is None:
            raise ValueError("there are no labelled pictures")
        task = AccuracyTask(
            candidates=(candidate,),
            dataset=setup.dataset,
            loader=LoaderOptions(preprocessing=setup.bundle.manifest.model.preprocessing),
            classes=setup.bundle.manifest.model.architecture.num_classes,
        )
        answers = measure_accuracy(task).answers
        right: NDArray[np.bool_] = np.array(answers.places[0]) == 0
        return right

    def _judged(self, config: LoweringConfig) -> Judged:
        built = self.builder.built(config)
        candidate = self.builder.candidate(built)
        runtime = candidate.open()
        try:
            got = run_batches(runtime, self._judged_images, self._chunks, candidate.batches)
        finally:
            runtime.close()
        compared = compare_outputs(self._reference, got, TOLERANCES[config.precision])
        if any(not item.deviation.finite for item in compared):
            return Judged(spent_s=0.0, failure="its outputs are not finite numbers")
        noise = [item.deviation.sqnr_db for item in compared if item.deviation.sqnr_db is not None]
        scores = next((name for name in ("logits", "probabilities") if name in got), None)
        changed = None
        if scores is not None:
            choice = decisions(self._reference[scores], got[scores], rtol=0, atol=0)
            changed = 100 * choice.flips / choice.images
        top1 = drop = None
        if self._setup.dataset is not None:
            top1 = 100 * float(self._right(candidate).mean())
            drop = 100 * float(self._reference_right.mean()) - top1
        return Judged(
            spent_s=0.0,
            artifact_sha256=built.graph.file.sha256,
            sqnr_db=min(noise, default=None),
            changed_percent=changed,
            top1_percent=top1,
            drop_points=drop,
            within_tolerance=all(item.status is Status.PASSED for item in compared),
        )
