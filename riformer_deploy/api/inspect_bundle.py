"""What a bundle and its engines are, from their records alone: neither graphs nor weights are read."""

from __future__ import annotations

import contextlib
from pathlib import Path

from riformer_deploy.api.inspections import (
    BundleInspection,
    EngineInspection,
    EngineParity,
    OnnxInspection,
    ShippedArtifact,
)
from riformer_deploy.bundle.artifacts import MANIFEST, OnnxArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.manifest import architecture_problem
from riformer_deploy.bundle.store import Bundle, engine_of
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
from riformer_deploy.trt.fit_checks import check_file
from riformer_deploy.trt.preflight import preflight_here


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
    problems, intact = [], set()
    graphs = {graph.file: graph for graph in manifest.onnx}
    for record in manifest.files:
        try:
            bundle.graph_path(graphs[record]) if record in graphs else bundle.path_of(record)
            intact.add(record.path)
        except BundleIntegrityError as err:
            problems.append(err.message)
    if (wrong := architecture_problem(manifest)) is not None:
        problems.append(wrong)
    parity = _stored_parity(bundle, problems)
    missing = not_verified(manifest, parity) if parity is not None else ()
    if missing:
        parity = None
    parities = [(engine, _parity_of(bundle, engine, problems)) for engine in manifest.engines]
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


def _parity_of(bundle: Bundle, engine: EngineArtifact, problems: list[str]) -> EngineParity | None:
    """The stored parity report of this very engine; one way of launching it that failed makes it failed."""
    parity = _stored_parity(bundle, problems, engine.parity_kind)
    if parity is None or {c.artifact_sha256 for c in parity.candidates} != {engine.file.sha256}:
        return None
    if not_verified(bundle.manifest, parity, (engine.file,)):
        return None
    return EngineParity(status=parity.status, created_utc=parity.created_utc, gpus=parity.machine.gpus)


def inspect_engine(path: Path) -> EngineInspection:
    """Say what an engine is, and whether it fits this machine.

    Args:
        path: The plan, in its bundle.

    Raises:
        BundleError: It lies in no bundle, or in one that does not list it.
    """
    try:
        bundle = Bundle.open(path.parent)
    except BundleError as err:
        raise BundleError(
            f"{path} lies in no bundle, and a plan says nothing of itself: {err.message}",
            details=err.details,
            remedy="Inspect it in the bundle that it was built in, or build it with `riformer-deploy build`.",
        ) from err
    artifact = engine_of(bundle, path)
    findings = preflight_here(artifact, path)
    return EngineInspection(
        kind="engine",
        path=str(path),
        artifact=artifact,
        intact=not check_file(artifact, path),
        fits=not findings,
        findings=findings,
        parity=_parity_of(bundle, artifact, []),
    )
