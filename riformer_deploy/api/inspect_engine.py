"""What an engine is, from its bundle's record of it."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.api.inspect_bundle import engine_parity
from riformer_deploy.api.inspections import EngineInspection
from riformer_deploy.bundle.store import Bundle, engine_of
from riformer_deploy.common.errors import BundleError
from riformer_deploy.trt.fit_checks import check_file
from riformer_deploy.trt.preflight import preflight_here


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
        parity=engine_parity(bundle, artifact, []),
    )
