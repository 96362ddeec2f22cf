"""Parity in a run: of what can run here, only where the bundle holds no valid verdict on it."""

from __future__ import annotations

from collections.abc import Sequence

from riformer_deploy.api.parity import MODELS, verify_bundle
from riformer_deploy.api.run_context import RunContext, measured_step
from riformer_deploy.api.run_records import RunStep, StepOutcome
from riformer_deploy.backends.base import Candidate, CandidateSet
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Target
from riformer_deploy.common.errors import BundleError
from riformer_deploy.evaluation.evidence import not_verified
from riformer_deploy.evaluation.stored_parity import stored_parity


def measure_parity(context: RunContext) -> RunStep:
    """Compare what can run here with the reference, and has no valid verdict yet.

    Args:
        context: The run.

    Raises:
        BundleError: A file was changed, or the bundle cannot be written.
    """
    bundle = Bundle.open(context.directory)
    models = select_candidates(bundle, MODELS).candidates
    engines = CandidateSet()
    if context.options.target is not Target.CPU:
        engines = select_candidates(bundle, (Group.ENGINE,))
    anew = _parity_gap(context, bundle, models)
    groups = MODELS if anew else ()
    unjudged = _unjudged(context, bundle, engines.candidates)
    if unjudged:
        groups = (*groups, Group.ENGINE)
    if not groups:
        text = f"of {len(models) + len(engines.candidates)} candidates, of the same files and libraries"
        return RunStep(name="parity", outcome=StepOutcome.REUSED, text=text)

    def work() -> str:
        result = verify_bundle(context.directory, None, context.progress, groups=groups)
        failed = f"; failed: {', '.join(c.name for c in result.failed)}" if result.failed else ""
        why = anew or f"no verdict on {', '.join(c.config.name for c in unjudged)}"
        return f"of {len(result.candidates)} candidates ({why}){failed}"

    return measured_step("parity", work)


def _parity_gap(context: RunContext, bundle: Bundle, models: Sequence[Candidate]) -> str:
    """Why the models' stored parity is not evidence of what would be found here, or nothing."""
    try:
        stored = stored_parity(bundle)
    except BundleError as err:
        return err.message
    if stored is None:
        return "none was stored"
    if problems := not_verified(bundle.manifest, stored):
        return "; ".join(problems)
    if not context.same_software(stored.machine):
        return "that stored is of another processor or other libraries"
    verdicts = {(c.config, c.artifact_sha256) for c in stored.candidates}
    new = [c.config.name for c in models if (c.config, c.artifact_sha256) not in verdicts]
    return f"no verdict on {', '.join(new)}" if new else ""


def _unjudged(context: RunContext, bundle: Bundle, engines: Sequence[Candidate]) -> list[Candidate]:
    """Engines that can run here and have no verdict of this machine."""
    found = []
    kinds = {engine.file.sha256: engine.parity_kind for engine in bundle.manifest.engines}
    for candidate in engines:
        try:
            stored = stored_parity(bundle, kinds[candidate.artifact_sha256])
        except BundleError:
            stored = None
        known = stored is not None and stored.machine.gpus == context.machine.gpus
        verdicts = {(c.config, c.artifact_sha256) for c in stored.candidates} if stored and known else set()
        if (candidate.config, candidate.artifact_sha256) not in verdicts:
            found.append(candidate)
    return found
