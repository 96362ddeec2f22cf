"""Whether an engine can run here, found out before TensorRT is given the file.

A plan is code: TensorRT runs what it is given, and says little when it does not fit. So the file's hash,
the backend and its version, the GPU, the driver and the batch size are compared with its metadata first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from riformer_deploy.bundle.engine_metadata import EngineArtifact, TensorRTFlavor
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.errors import EngineUnfitError, MissingDependencyError
from riformer_deploy.common.files import read_regular
from riformer_deploy.system.cuda_driver import query_driver
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.fit_checks import (
    Host,
    check_batch,
    check_file,
    check_gpu,
    check_precision,
    check_version,
)
from riformer_deploy.trt.invalidity import remedy_of
from riformer_deploy.trt.mismatch import Mismatch
from riformer_deploy.trt.validity import validity


def this_host() -> Host:
    """This machine; nothing is imported."""
    return Host(
        versions={backend: installed_version(backend.module) for backend in TensorRTFlavor},
        driver=query_driver(),
    )


Validity = Callable[[bytes], tuple[str, tuple[str, ...]] | None]
"""What the installed bindings say of a plan, as :func:`riformer_deploy.trt.validity.validity` gives it."""


def preflight(
    artifact: EngineArtifact,
    path: Path,
    host: Host,
    *,
    batch: int | None = None,
    validity: Validity | None = None,
) -> tuple[Mismatch, ...]:
    """Everything that keeps an engine from running on a machine, each with what would fix it.

    Args:
        artifact: The engine.
        path: Its file.
        host: The machine.
        batch: The batch size that it shall run, if one is meant.
        validity: Asks the backend itself; only where everything else fits, since it needs a driver.
    """
    findings = [
        *check_file(artifact, path),
        *check_version(artifact, host),
        *check_gpu(artifact, host),
        *check_precision(artifact, host),
        *(check_batch(artifact, batch) if batch is not None else ()),
    ]
    if not findings and validity is not None:
        verdict, reasons = validity(read_regular(path, artifact.file.size_bytes)) or ("", ())
        if verdict == "INVALID":
            label = artifact.metadata.backend.label
            findings += [
                Mismatch(problem=f"{label} calls it invalid: {reason}.", remedy=remedy_of(reason, artifact))
                for reason in reasons or ("it names no reason",)
            ]
    return tuple(findings)


def preflight_here(artifact: EngineArtifact, path: Path) -> tuple[Mismatch, ...]:
    """Everything that keeps an engine from running on this machine; its own backend is asked last.

    Args:
        artifact: The engine.
        path: Its file.
    """

    def ask(plan: bytes) -> tuple[str, tuple[str, ...]] | None:
        return validity(load(artifact.metadata.backend), plan)

    try:
        return preflight(artifact, path, this_host(), validity=ask)
    except MissingDependencyError as err:  # installed, but it cannot be imported
        return (Mismatch(problem=err.message, remedy=err.remedy),)


def require_fit(artifact: EngineArtifact, findings: tuple[Mismatch, ...]) -> None:
    """Refuse an engine that does not fit.

    Raises:
        EngineUnfitError: There are findings.
    """
    if findings:
        raise EngineUnfitError(
            f"The engine {artifact.file.path} cannot run here.",
            details=[finding.problem for finding in findings],
            remedy=" ".join(dict.fromkeys(finding.remedy for finding in findings)),
        )
