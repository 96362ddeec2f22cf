"""Puts the answer of a search into the bundle, as ``export`` would have: replaced evidence goes by name."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from riformer_deploy.api.bundle_assembly import stage_samples
from riformer_deploy.api.parity import MODELS, measure_parity, results_by_kind
from riformer_deploy.api.parity_reference import ParityReference, parity_reference
from riformer_deploy.api.previous_bundle import PreviousBundle, dropped_notes
from riformer_deploy.api.tune_artifacts import Built
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import commit, record_file, staging
from riformer_deploy.common.enums import Group, RuntimeKind
from riformer_deploy.common.progress import Progress
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.quantization.tune_result import TuneResult
from riformer_deploy.system.machine import library_versions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True)
class Landing:
    """An answer on its way into a bundle.

    Attributes:
        bundle: That was tuned.
        built: The answer.
        previous: What of the bundle stays beside a new graph of that precision.
        images: The calibration images, of which the bundle keeps some for its parity reports.
        runtime: The target.
        kind: Of the search's result.
        base: What :func:`~riformer_deploy.bundle.writing.check_target` gave before the search.
    """

    bundle: Bundle
    built: Built
    previous: PreviousBundle
    images: CalibrationSet
    runtime: RuntimeKind
    kind: str
    base: str | None


def land(
    landing: Landing, result_of: Callable[[tuple[str, ...], Status], TuneResult], progress: Progress
) -> TuneResult:
    """Put the answer's files, the bundle's new parity reports and the search's result into the bundle.

    Args:
        landing: What is put where.
        result_of: Makes the result of notes and the verdict on the answer's parity.
        progress: Called with each step.

    Returns:
        The result. Where parity failed, nothing was written.

    Raises:
        BundleChangedError: Another process changed the bundle since the search began.
        BundleError: It cannot be written.
        RuntimeFailureError: A model cannot be run.
    """
    before = landing.bundle.manifest
    parent = before.reference.file.sha256
    graph, engines = landing.built.graph, landing.built.bundle.manifest.engines
    with staging(landing.bundle.directory) as staged:
        for record in (graph.file, *(record for engine in engines for record in engine.files)):
            shutil.copyfile(landing.built.bundle.path_of(record), staged / record.path)
        new = {engine.file.path for engine in engines}
        replaced = [engine for engine in landing.previous.engines if engine.file.path in new]
        previous = dataclasses.replace(
            landing.previous, engines=tuple(e for e in landing.previous.engines if e not in replaced)
        )
        kept = previous.kept_beside((graph,), before.weights, staged)
        dropped = [
            *(f"{engine.file.path}: the engine that was measured takes its place" for engine in replaced),
            *kept.dropped,
        ]
        samples = None if landing.images.random else landing.images
        manifest = dataclasses.replace(
            before,
            tool_version=VERSION,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            onnx=kept.onnx,
            engines=(*kept.engines, *engines),
            samples=stage_samples(staged, samples, parent) or landing.previous.samples,
            reference_outputs=None,
            results={},
            libraries=library_versions(),
        )
        whole = Bundle(staged, manifest, base=landing.bundle.directory)
        expected = parity_reference(whole, progress)
        proofs = _prove(whole, engines, expected, progress)
        failed = [candidate for item in proofs.values() for candidate in item.failed]
        notes = tuple(f"parity: {why_failed(candidate)}" for candidate in failed)
        # whatever a runtime's verdict is worth elsewhere: this file is made for that runtime
        own = [c for c in failed if c.runtime is landing.runtime and c.file == graph.file.path]
        if own or any(item.status is Status.FAILED for item in proofs.values()):
            return result_of(notes, Status.FAILED)
        result = result_of((*notes, *dropped_notes(dropped)), Status.PASSED)
        results = {
            **kept.results,
            **{kind: _staged(staged, kind, item, parent) for kind, item in proofs.items()},
            landing.kind: _staged(staged, landing.kind, result, parent),
        }
        outputs = expected.stage(staged, parent)
        manifest = dataclasses.replace(manifest, results=results, reference_outputs=outputs)
        commit(landing.bundle.directory, staged, manifest, force=False, base=landing.base)
    return result


def _prove(
    bundle: Bundle, engines: Sequence[EngineArtifact], expected: ParityReference, progress: Progress
) -> dict[str, ParityResult]:
    """Parity of all models of a staged bundle and of new engines, by kind of result."""

    def tell(step: str) -> None:
        progress(f"proving parity: {step}")

    found = {"parity": measure_parity(bundle, TOLERANCES, tell, expected=expected, groups=MODELS)}
    if engines:
        precisions = [engine.precision for engine in engines]
        of_engines = measure_parity(
            bundle, TOLERANCES, tell, expected=expected, groups=(Group.ENGINE,), precisions=precisions
        )
        parts, kinds = results_by_kind(bundle, of_engines), {engine.parity_kind for engine in engines}
        found |= {kind: part for kind, part in parts.items() if kind in kinds}
    return found


def _staged(staged: Path, kind: str, result: DataclassInstance, parent_sha256: str) -> FileRecord:
    path = staged / f"{kind}.json"
    path.write_text(dump_json(result), encoding="utf-8")
    return record_file(path, parent_sha256)
