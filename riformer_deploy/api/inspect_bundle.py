"""What a bundle holds, and whether it is as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.inspect_engine import EngineParity, engine_parity_of, readable_parity
from riformer_deploy.api.inspect_onnx import OnnxInspection, inspect_onnx
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleIntegrityError
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import Status
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.flops import complexity


@dataclass(frozen=True, kw_only=True)
class BundleInspection:
    """A bundle.

    Attributes:
        kind: Always ``bundle``.
        path: Its folder.
        manifest: ``bundle.json``.
        flops: Multiply-adds of one image in the deploy form.
        deploy_parameters: Number of weights once fused.
        graphs: Every ONNX file that is as recorded.
        parity: The verdict of the stored parity report under the default limits; None where there is none.
        parity_utc: When that parity report was made.
        parity_failures: Why each of its candidates that failed did, runtimes that judge no file included.
        intact: Whether every file has the recorded sha256.
        problems: Those that do not.
        engine_parity: The stored parity report of each engine that has one, by the engine's file.
    """

    kind: str
    path: str
    manifest: Manifest
    flops: int
    deploy_parameters: int
    graphs: tuple[OnnxInspection, ...]
    parity: Status | None
    parity_utc: str | None
    intact: bool
    problems: tuple[str, ...]
    engine_parity: dict[str, EngineParity]
    parity_failures: tuple[str, ...] = ()


def inspect_bundle(path: Path) -> BundleInspection:
    """What a bundle holds; a file that was changed is a finding, not an error.

    Args:
        path: Its folder.

    Raises:
        BundleError: It is no bundle.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    problems, intact = [], set()
    for record in manifest.files:
        try:
            bundle.path_of(record)
            intact.add(record.path)
        except BundleIntegrityError as err:
            problems.append(err.message)
    parity = readable_parity(bundle, problems)
    parities = [(engine, engine_parity_of(bundle, engine, problems)) for engine in manifest.engines]
    model = manifest.model
    cost = complexity(model.architecture, Form.DEPLOY, model.preprocessing.crop_px)
    return BundleInspection(
        kind="bundle",
        path=str(path),
        manifest=manifest,
        flops=cost.flops,
        deploy_parameters=cost.parameters,
        graphs=tuple(inspect_onnx(path / g.file.path) for g in manifest.onnx if g.file.path in intact),
        parity=parity.status if parity else None,
        parity_utc=parity.created_utc if parity else None,
        parity_failures=tuple(map(why_failed, parity.failed)) if parity else (),
        intact=not problems,
        problems=tuple(problems),
        engine_parity={engine.file.path: found for engine, found in parities if found is not None},
    )
