"""What a bundle holds, from its records; of graphs and weights only whether they are those recorded."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from riformer_deploy.api.inspections import (
    BundleInspection,
    EngineParity,
    OnnxInspection,
    ShippedArtifact,
)
from riformer_deploy.bundle.artifacts import MANIFEST, FileRecord, OnnxArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.manifest import architecture_problem
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleChangedError, BundleError, BundleIntegrityError
from riformer_deploy.evaluation.evidence import not_verified
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import ParityResult
from riformer_deploy.evaluation.stored_parity import stored_parity
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.reporting.evidence import Evidence, evidence_of
from riformer_deploy.reporting.summary import Choice, choices
from riformer_deploy.reporting.summary import not_verified as not_verified_of


def _stored_parity(bundle: Bundle, problems: list[str], kind: str = "parity") -> ParityResult | None:
    try:
        return stored_parity(bundle, kind)
    except BundleIntegrityError:
        return None  # listed already
    except BundleChangedError:
        raise
    except BundleError as err:
        problems.append(err.message)
        return None


def _inspect_graph(bundle: Bundle, artifact: OnnxArtifact) -> OnnxInspection:
    """As recorded when it was exported: the file is the one that was, or it would not be asked for."""
    contents = artifact.contents
    return OnnxInspection(
        kind="onnx",
        path=str(bundle.directory / artifact.file.path),
        sha256=artifact.file.sha256,
        size_bytes=artifact.file.size_bytes,
        producer=contents.producer,
        opset=artifact.opset,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        parameters=contents.parameters,
        flops=contents.flops,
        nodes=contents.nodes,
        provenance=contents.provenance,
    )


def _evidence(bundle: Bundle) -> tuple[Evidence, tuple[str, ...]]:
    """What was measured, and what is not verified; a result that cannot be used says so there."""
    try:
        evidence = evidence_of(bundle)
    except BundleChangedError:
        raise
    except BundleError as err:
        return Evidence(path=bundle.directory, manifest=bundle.manifest), (err.message,)
    return evidence, not_verified_of(evidence)


def _shipped(choice: Choice) -> ShippedArtifact:
    return ShippedArtifact(
        batch=choice.batch,
        name=choice.fastest.name,
        file=choice.file,
        median_ms=choice.fastest.summary.median_ms,
        baseline=choice.baseline.name if choice.baseline else None,
        ratio=choice.ratio,
        parity=choice.parity,
        top1_percent=choice.accuracy.top1.percent if choice.accuracy else None,
    )


_READERS = 4
"""Files that are checked at a time at most."""
_TRIES = 3


def inspect_bundle(path: Path) -> BundleInspection:
    """Say what a bundle holds, and whether every file of it is as recorded.

    A bundle that is replaced meanwhile is looked at again, as it is then.

    Args:
        path: Its folder.

    Raises:
        BundleError: It is not a bundle.
        BundleChangedError: Others replace it again and again.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(BundleChangedError):
            return _inspect(path)
    return _inspect(path)


def _inspect(path: Path) -> BundleInspection:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    damage = _damage(bundle)
    intact = {record.path for record in manifest.files} - damage.keys()
    problems = list(damage.values())
    if (wrong := architecture_problem(manifest)) is not None:
        problems.append(wrong)
    parity = _stored_parity(bundle, problems)
    missing = not_verified(manifest, parity) if parity is not None else ()
    if missing:
        parity = None
    parities = [(engine, engine_parity(bundle, engine, problems)) for engine in manifest.engines]
    evidence, missing_evidence = _evidence(bundle)
    model = manifest.model
    cost = complexity(model.architecture, Form.DEPLOY, model.preprocessing.crop_px)
    return BundleInspection(
        kind="bundle",
        path=str(path),
        manifest=manifest,
        flops=cost.flops,
        deploy_parameters=cost.parameters,
        graphs=tuple(_inspect_graph(bundle, graph) for graph in manifest.onnx if graph.file.path in intact),
        parity=parity.status if parity else None,
        parity_utc=parity.created_utc if parity else None,
        parity_failures=tuple(map(why_failed, parity.failed)) if parity else (),
        parity_not_verified=missing,
        intact=not problems,
        problems=tuple(problems),
        foreign=tuple(
            sorted({item.name for item in path.iterdir()} - {MANIFEST, *(r.path for r in manifest.files)})
        ),
        engine_parity={engine.file.path: found for engine, found in parities if found is not None},
        shipped=tuple(map(_shipped, choices(evidence))),
        accuracy=evidence.accuracy.artifacts if evidence.accuracy else (),
        not_verified=missing_evidence,
    )


def _damage(bundle: Bundle) -> dict[str, str]:
    """What is wrong with files of a bundle, by the file; several are checked at a time."""
    graphs = {graph.file: graph for graph in bundle.manifest.onnx}

    def problem_of(record: FileRecord) -> str | None:
        try:
            bundle.graph_path(graphs[record]) if record in graphs else bundle.path_of(record)
        except BundleIntegrityError as err:
            return err.message
        return None

    files = bundle.manifest.files
    with ThreadPoolExecutor(_READERS) as pool:
        # graphs are in memory meanwhile, so one thread takes one after the other
        of_graphs = pool.submit(lambda: {record: problem_of(record) for record in graphs})
        others = [record for record in files if record not in graphs]
        found = dict(zip(others, pool.map(problem_of, others), strict=True)) | of_graphs.result()
    return {record.path: problem for record in files if (problem := found[record]) is not None}


def engine_parity(bundle: Bundle, engine: EngineArtifact, problems: list[str]) -> EngineParity | None:
    """The stored parity report of this very engine; one way of launching it that failed makes it failed.

    Args:
        bundle: Open.
        engine: One of its engines.
        problems: A report that cannot be read is added here, in words.

    Raises:
        BundleChangedError: Another process replaced the bundle since it was opened.
    """
    parity = _stored_parity(bundle, problems, engine.parity_kind)
    if parity is None or {c.artifact_sha256 for c in parity.candidates} != {engine.file.sha256}:
        return None
    if not_verified(bundle.manifest, parity, (engine.file,)):
        return None
    return EngineParity(status=parity.status, created_utc=parity.created_utc, gpus=parity.machine.gpus)
