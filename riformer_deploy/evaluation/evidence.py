"""What a stored parity report verifies: verdicts are derived again, and it counts for what it names alone."""

from __future__ import annotations

import math

from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.evaluation.metric_records import Decisions, Deviation
from riformer_deploy.evaluation.results import CandidateParity, OutputParity, ParityResult, Status, status
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance, output_used, stage_used

_SAME = 1e-6
"""Relative: figures that follow from each other are computed in float64, maybe on another machine."""


def contradictions(result: ParityResult) -> tuple[str, ...]:
    """Figures of a report that cannot stand beside each other, and verdicts that do not follow from them.

    Args:
        result: Read from a file; one that was measured has none.
    """
    found = []
    if not result.inputs.batches or min(result.inputs.batches) < 1:
        found.append("it was measured on no images")
    for candidate in result.candidates:
        found += [
            f"{candidate.name}: {text}" for text in _of_candidate(candidate, sum(result.inputs.batches))
        ]
    return tuple(found)


def _of_candidate(candidate: CandidateParity, images: int) -> list[str]:
    found = []
    for output in candidate.outputs:
        found += [f"{output.name}: {text}" for text in _of_output(output, candidate.tolerance, images)]
    for stage in candidate.stages:
        distance = stage.deviation
        found += [f"stage {stage.stage}: {text}" for text in _of_figures(distance)]
        used = stage_used(distance, candidate.tolerance)
        passed = used is not None and used <= 1
        if stage.status is not status(passed=passed):
            found.append(f"stage {stage.stage}: {stage.status} does not follow from its figures")
    verdicts = [*(item.status for item in candidate.outputs), *(item.status for item in candidate.stages)]
    passed = bool(candidate.outputs) and all(verdict is Status.PASSED for verdict in verdicts)
    if candidate.status is not status(passed=passed):
        found.append(f"{candidate.status} does not follow from its outputs and stages")
    return found


def _of_output(output: OutputParity, tolerance: Tolerance, images: int) -> list[str]:
    distance, choice = output.deviation, output.decisions
    found = _of_figures(distance)
    if tolerance.elementwise is not None and distance.finite:
        found += _of_elementwise(distance, tolerance.elementwise)
    if choice is not None:
        found += _of_decisions(choice, images)
    used = output_used(output.name, distance, tolerance)
    if not _same(used, output.tolerance_used):
        found.append(f"{output.tolerance_used} of the tolerance, its figures say {used}")
    passed = used is not None and used <= 1 and (choice is None or choice.decided_flips == 0)
    if output.status is not status(passed=passed):
        found.append(f"{output.status} does not follow from its figures")
    return found


def _of_figures(distance: Deviation) -> list[str]:
    figures = (distance.max_abs, distance.max_relative, distance.relative_l2, distance.elementwise_used)
    if not distance.finite:
        rest = (*figures, distance.sqnr_db, distance.cosine)
        return ["figures of values that are not finite"] if any(f is not None for f in rest) else []
    found = []
    if distance.max_abs is None or any(figure is not None and figure < 0 for figure in figures):
        found.append("no distance")
    relative = distance.relative_l2
    if not _same(distance.sqnr_db, -20 * math.log10(relative) if relative and relative > 0 else None):
        found.append(f"SQNR {distance.sqnr_db} dB, its relative L2 error is {relative}")
    if (relative is None) != (distance.max_relative is None) or (
        relative is not None and (relative == 0) != (distance.max_abs == 0)
    ):
        found.append(f"relative L2 error {relative}, its largest difference is {distance.max_abs}")
    if relative is not None and distance.cosine is not None:
        # of all vectors at this angle, the nearest is this far from the reference
        nearest = math.sqrt(max(0.0, 1 - min(1.0, max(distance.cosine, 0.0)) ** 2))
        if relative < nearest - _SAME:
            found.append(f"relative L2 error {relative}, its cosine is {distance.cosine}")
    return found


def _of_elementwise(distance: Deviation, limits: tuple[float, float]) -> list[str]:
    """The largest difference, at the largest reference value there is, takes at least this share."""
    rtol, atol = limits
    if not distance.max_abs:
        return []
    largest = distance.max_abs / distance.max_relative if distance.max_relative else 0.0
    allowed = atol + rtol * largest
    used = distance.elementwise_used
    if used is not None and allowed > 0 and used < distance.max_abs / allowed * (1 - _SAME):
        return [f"{used} times what is allowed, its largest difference alone is {distance.max_abs / allowed}"]
    return []


def _of_decisions(choice: Decisions, images: int) -> list[str]:
    counts = (choice.decided_flips, choice.flips, choice.images)
    if choice.images < max(images, 1) or sorted((0, *counts)) != [0, *counts]:
        return [f"{choice.images} images compared of {images}, {choice.flips} flips"]
    if not _same(choice.top1_agreement, 1 - choice.flips / choice.images):
        return [f"an agreement of {choice.top1_agreement}, {choice.flips} of {choice.images} flip"]
    return []


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=1e-12)


def of_another_model(manifest: Manifest, result: ParityResult) -> list[str]:
    """Why a stored report is about another model than a bundle's; nothing where it is about this one.

    Args:
        manifest: The bundle's.
        result: One of its reports.
    """
    found = []
    if result.reference_sha256 != manifest.reference.file.sha256:
        found.append("it compares with other weights than the bundle's reference")
    if result.inputs.image_size_px != manifest.model.preprocessing.crop_px:
        found.append("its images are not of the model's size")
    return found


def not_verified(
    manifest: Manifest, result: ParityResult, artifacts: tuple[FileRecord, ...] | None = None
) -> tuple[str, ...]:
    """Why a stored report verifies not all that a bundle holds; nothing where it does.

    Args:
        manifest: The bundle's.
        result: One of its reports.
        artifacts: Whose parity it is to verify; None means every graph of the bundle.
    """
    found = of_another_model(manifest, result)
    found += [
        f"{candidate.name} was held to other limits than the default ones"
        for candidate in result.candidates
        if candidate.tolerance != TOLERANCES[candidate.precision]
    ]
    wanted = tuple(graph.file for graph in manifest.onnx) if artifacts is None else artifacts
    found += [
        f"{candidate.name} ran another file"
        for candidate in result.candidates
        if ran_another_file(manifest, candidate)
    ]
    found += [
        f"it holds no verdict on this {record.path}"
        for record in wanted
        if not any(_judges(manifest, candidate, record) for candidate in result.candidates)
    ]
    return tuple(found)


def _files(manifest: Manifest) -> dict[str, tuple[FileRecord, Precision]]:
    found = {item.file.path: (item.file, Precision.FP32) for item in manifest.weights}
    found |= {graph.file.path: (graph.file, graph.precision) for graph in manifest.onnx}
    return found | {engine.file.path: (engine.file, engine.precision) for engine in manifest.engines}


def ran_another_file(manifest: Manifest, candidate: CandidateParity) -> bool:
    """Whether what was run is not the bundle's file that the verdict is about."""
    record, precision = _files(manifest).get(candidate.file or "", (None, None))
    if record is None or precision is not candidate.precision:
        return True
    sources = {record.sha256}
    if candidate.runtime is RuntimeKind.PYTORCH:  # the module behind a graph is rebuilt from the reference
        sources.add(manifest.reference.file.sha256)
    return candidate.artifact_sha256 not in sources


def _judges(manifest: Manifest, candidate: CandidateParity, record: FileRecord) -> bool:
    if candidate.file != record.path or not candidate.judges_file or ran_another_file(manifest, candidate):
        return False
    # ONNX Runtime has no kernels for bfloat16: there alone the module behind the graph stands for it
    return candidate.runtime is not RuntimeKind.PYTORCH or candidate.precision is Precision.BF16
