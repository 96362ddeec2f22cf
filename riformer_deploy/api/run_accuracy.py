"""Accuracy in a run: measured only where the bundle does not hold the figures."""

from __future__ import annotations

import dataclasses

from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle, stored_accuracy
from riformer_deploy.api.run_context import RunContext, measured_step
from riformer_deploy.api.run_records import RunStep, StepOutcome
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.bundle.results import recording_failures, store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.common.enums import Group
from riformer_deploy.common.progress import Step
from riformer_deploy.evaluation.accuracy_results import ANSWERS, AccuracyResult, compare_accuracy
from riformer_deploy.evaluation.results import Status


def measure_accuracy(context: RunContext) -> RunStep:
    """Run what can run here on the labelled pictures, unless the bundle holds the figures.

    Args:
        context: The run.

    Raises:
        BundleError: A file was changed, or another process is at the same pass.
        DatasetError: None of the pictures can be used.
    """
    options, dataset = context.options, context.dataset
    if dataset is None or options.data is None:
        text = "no labelled pictures were given (--data)"
        return RunStep(name="accuracy", outcome=StepOutcome.SKIPPED, text=text)
    bundle = Bundle.open(context.directory)
    groups = _accuracy_groups(context, bundle)
    wanted = select_candidates(
        bundle, groups, folded=False, keep_memory=False, gpu=GpuOptions(cuda_graphs=(False,))
    ).candidates
    stored = stored_accuracy(bundle)
    if (
        stored is not None
        and {(c.config, c.artifact_sha256) for c in wanted}
        <= {(item.config, item.artifact_sha256) for item in stored.artifacts}
        and (stored.dataset.identity, stored.dataset.total) == (dataset.identity, dataset.total)
        and stored.dataset.asked >= len(dataset)
        and stored.preprocessing == context.model.preprocessing
        and context.same_software(stored.machine)
    ):
        text = f"on {stored.dataset.asked} pictures, of the same files, pictures and libraries"
        if stored.max_drop_points != options.max_drop_points:
            _store_with_gate(bundle, stored, options.max_drop_points)
            text += f"; held to {_gate_text(options.max_drop_points)} now"
        return RunStep(name="accuracy", outcome=StepOutcome.REUSED, text=text)
    asked = AccuracyOptions(
        data=options.data,
        split=options.split,
        groups=groups,
        limit=options.limit,
        max_drop_points=options.max_drop_points,
    )

    def count(done: int, total: int) -> None:
        context.progress(Step("measuring accuracy", f"{done} of {total} pictures"))

    def work() -> str:
        result = accuracy_bundle(context.directory, asked, count)
        failed = [item.config.name for item in result.comparisons if item.status is Status.FAILED]
        out = f"; the gate does not hold: {', '.join(failed)}" if failed else ""
        again = f", {result.resumed_from} of them by an interrupted run" if result.resumed_from else ""
        return f"of {len(result.artifacts)} artifacts on {result.artifacts[0].images} pictures{again}{out}"

    return measured_step("accuracy", work)


def _gate_text(max_drop_points: float | None) -> str:
    return "no gate" if max_drop_points is None else f"a drop of at most {max_drop_points:g} points"


def _accuracy_groups(context: RunContext, bundle: Bundle) -> tuple[Group, ...]:
    """What measures accuracy: PyTorch first, the baseline of the others."""
    groups = [Group.TORCH, Group.ONNX]
    if installed_version("openvino") is not None:
        groups.append(Group.OPENVINO)
    if context.has_gpu and select_candidates(bundle, (Group.ENGINE,)).candidates:
        groups.append(Group.ENGINE)
    return tuple(groups)


def _store_with_gate(bundle: Bundle, stored: AccuracyResult, max_drop_points: float | None) -> None:
    """Store the same figures under another gate: verdicts follow from the counts."""
    comparisons = tuple(
        compare_accuracy(
            item.config,
            item.baseline,
            lost=item.lost,
            gained=item.gained,
            changed=item.changed,
            images=item.images,
            max_drop_points=max_drop_points,
        )
        for item in stored.comparisons
    )
    failed = any(item.status is Status.FAILED for item in comparisons)
    result = dataclasses.replace(
        stored,
        comparisons=comparisons,
        max_drop_points=max_drop_points,
        status=Status.FAILED if failed else Status.PASSED,
    )
    answers = bundle.read(bundle.manifest.results[ANSWERS]).decode("utf-8", "surrogateescape")
    with recording_failures("accuracy"):
        store_result(bundle, "accuracy", result, {ANSWERS: answers})
