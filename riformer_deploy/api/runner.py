"""The one model of a bundle that a command runs."""

from __future__ import annotations

import logging
from collections.abc import Collection

from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.candidates import require_backends, select_candidates
from riformer_deploy.backends.gpu_candidates import GpuOptions
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleError, EngineUnfitError
from riformer_deploy.evaluation.parity_failures import stored_failure, why_failed

_LOG = logging.getLogger(__name__)


def only_runner(
    bundle: Bundle, group: Group, *, files: Collection[str] | None = None, precision: Precision | None = None
) -> Candidate:
    """The first model of a group that has not failed parity, for work that one model does.

    Args:
        bundle: Holds the models; one that failed its stored parity is left out with a warning.
        group: The kind of model.
        files: The bundle's files that can do the work; None for any.
        precision: What the model must compute in; None takes the first.

    Raises:
        BundleError: The bundle holds none that this machine can run, or all of them failed parity; the
            reasons are listed.
        EngineUnfitError: It holds engines, and none fits this machine or all of them failed parity.
        MissingDependencyError: What runs it is not installed.
    """
    require_backends((group,))
    wanted = () if precision is None else (precision,)
    selected = select_candidates(
        bundle, (group,), keep_memory=False, gpu=GpuOptions(required=True), precisions=wanted
    )
    able = [item for item in selected.candidates if files is None or item.file in files]
    able = [item for item in able if precision in {None, item.precision}]
    if not able:
        unfit = EngineUnfitError if group is Group.ENGINE else BundleError
        what = "nothing" if precision is None else f"no {precision} model"
        raise unfit(
            f"{bundle.directory} holds {what} that runs here with {group}.",
            details=[f"{item.name}: {item.reason}" for item in selected.skipped],
            remedy="Choose another --with.",
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
