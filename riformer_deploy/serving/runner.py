"""The one model of a bundle that a command runs."""

from __future__ import annotations

import logging
from collections.abc import Collection

from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.candidates import require_backends, select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleError, EngineUnfitError
from riformer_deploy.evaluation.failed_candidates import stored_failure
from riformer_deploy.evaluation.parity_failures import why_failed

_LOG = logging.getLogger(__name__)


def only_runner(
    bundle: Bundle,
    group: Group,
    *,
    files: Collection[str] | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    keep_memory: bool = False,
) -> Candidate:
    """The first model of a group that has not failed parity, for work that one model does.

    Args:
        bundle: Holds the models; one that failed its stored parity is left out with a warning.
        group: The kind of model.
        files: The bundle's files that can do the work; None for any.
        precision: What it must compute in; None for any.
        threads: CPU threads that it may use; None leaves the choice to what runs it.
        keep_memory: Whether ONNX Runtime keeps memory between runs: faster, and several times the memory.

    Raises:
        BundleError: The bundle holds none that this machine can run, or all of them failed parity; the
            reasons are listed.
        EngineUnfitError: It holds engines, and none fits this machine or all of them failed parity.
        MissingDependencyError: What runs it is not installed.
    """
    require_backends((group,))
    selected = select_candidates(
        bundle, (group,), threads=threads, keep_memory=keep_memory, gpu=GpuOptions(required=True)
    )
    able = [
        item
        for item in selected.candidates
        if (files is None or item.file in files) and (precision is None or item.precision is precision)
    ]
    if not able:
        unfit = EngineUnfitError if group is Group.ENGINE else BundleError
        runnable = ", ".join(item.name for item in selected.candidates) if precision is not None else ""
        raise unfit(
            f"{bundle.directory} holds nothing that runs here with {group}"
            + (f" in {precision}." if precision is not None else "."),
            details=[f"{item.name}: {item.reason}" for item in selected.skipped],
            remedy=f"It holds {runnable}: choose another precision."
            if runnable
            else "Choose another --with.",
        )
    failed: list[str] = []
    for candidate in able:
        failure = stored_failure(bundle, candidate)
        if failure is None:
            for text in failed:
                _LOG.warning("left out, since it failed parity: %s", text)
            return candidate
        failed.append(why_failed(failure))
    raise BundleError(
        f"What {group} runs of {bundle.directory} failed parity, so its answers are not the model's.",
        details=failed,
        remedy="Choose another --with, or compare it anew on this machine: `riformer-deploy verify parity`.",
    )
