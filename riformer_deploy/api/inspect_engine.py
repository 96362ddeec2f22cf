"""What an engine of a bundle is, and whether it runs here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle, engine_of
from riformer_deploy.common.errors import BundleError, BundleIntegrityError
from riformer_deploy.evaluation.parity_failures import stored_parity
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.trt.fit_checks import Mismatch, check_file
from riformer_deploy.trt.preflight import preflight_here


@dataclass(frozen=True, kw_only=True)
class EngineParity:
    """That an engine computes the reference's function, somewhere.

    Attributes:
        status: The verdict.
        created_utc: When.
        gpus: Of the machine.
    """

    status: Status
    created_utc: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EngineInspection:
    """An engine of a bundle.

    Attributes:
        kind: Always ``engine``.
        path: The file.
        artifact: Its record, engine metadata included.
        intact: Whether the file is the one that was built.
        fits: Whether preflight passes on this machine.
        findings: Why it does not.
        parity: The stored parity report of this very engine; None where there is none.
    """

    kind: str
    path: str
    artifact: EngineArtifact
    intact: bool
    fits: bool
    findings: tuple[Mismatch, ...]
    parity: EngineParity | None


def readable_parity(bundle: Bundle, problems: list[str], kind: str = "parity") -> ParityResult | None:
    """The bundle's stored parity of a kind; None where there is none or it cannot be read.

    Args:
        bundle: Open.
        problems: Receives why a record that is as it was written cannot be read.
        kind: ``parity``, or the ``parity_kind`` of an engine.
    """
    try:
        return stored_parity(bundle, kind)
    except BundleIntegrityError:
        return None  # listed already
    except BundleError as err:
        problems.append(err.message)
        return None


def engine_parity_of(bundle: Bundle, engine: EngineArtifact, problems: list[str]) -> EngineParity | None:
    """The stored parity report of this very engine; one way of launching it that failed makes it failed."""
    parity = readable_parity(bundle, problems, engine.parity_kind)
    if parity is None or {c.artifact_sha256 for c in parity.candidates} != {engine.file.sha256}:
        return None
    return EngineParity(status=parity.status, created_utc=parity.created_utc, gpus=parity.machine.gpus)


def inspect_engine(path: Path) -> EngineInspection:
    """What an engine was built with, whether its parity was shown, and whether it runs on this machine.

    Args:
        path: The file, in the folder of its bundle.

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
        parity=engine_parity_of(bundle, artifact, []),
    )
