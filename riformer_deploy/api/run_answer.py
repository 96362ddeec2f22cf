"""The answer of a run, from the bundle's evidence: what to ship, what must not be, what is not known."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from riformer_deploy.api.run_context import RunContext
from riformer_deploy.api.run_records import RunOptions, RunStep, ShipChoice, StepOutcome
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.common.enums import Processor, RuntimeKind, Target
from riformer_deploy.data.preprocessing_changes import changes_text
from riformer_deploy.evaluation.accuracy_results import AccuracyComparison
from riformer_deploy.evaluation.latency_summary import instability
from riformer_deploy.evaluation.parity_failures import why_failed
from riformer_deploy.evaluation.results import LatencyResult, Status
from riformer_deploy.reporting.evidence import Evidence, read_evidence
from riformer_deploy.reporting.html import answer_of, nothing_for
from riformer_deploy.reporting.summary import Choice, choices, gate_verdicts, not_verified, plain


@dataclass(frozen=True, kw_only=True)
class RunAnswer:
    """The answer.

    Attributes:
        status: ``failed`` where a batch size was timed and nothing of it may be shipped.
        choices: What to ship, by batch size.
        refused: Pairs of artifact and runtime that must not be shipped, each with the reason.
        unverified: What the bundle holds no evidence of, each in one sentence.
        text: All this, a line for each batch size, the circumstances, what is refused, what is not verified.
        next_command: The arguments of the next command as a rule.
    """

    status: Status
    choices: tuple[ShipChoice, ...]
    refused: tuple[str, ...]
    unverified: tuple[str, ...]
    text: str
    next_command: tuple[str, ...]


def answer(context: RunContext, steps: tuple[RunStep, ...] = ()) -> RunAnswer:
    """Decide.

    Args:
        context: The run.
        steps: What was done; where one failed, what the bundle held before it speaks.

    Raises:
        BundleError: A record in the bundle is not valid.
        BundleIntegrityError: A result was changed.
    """
    evidence = read_evidence(context.directory)
    aimed = _for_target(evidence, context.options.target)
    batches = context.options.batches
    if evidence.manifest is not None and (fixed := evidence.manifest.onnx[0].batch) is not None:
        batches = (fixed,)
    chosen = [
        choice
        for choice in choices(aimed)
        if choice.batch in batches
        and choice.parity is Status.PASSED
        and choice.file is not None
        and _holds_gate(context, evidence, choice)
    ]
    shipped = tuple(_ship(choice, evidence) for choice in chosen)
    refused = _refused(evidence, context.options.target)
    unverified = (*_earlier(steps), *not_verified(evidence), *_unsteady(aimed))
    timed = {s.batch for s in aimed.latency.samples if s.batch in batches} if aimed.latency else set()
    failed = timed - {choice.batch for choice in chosen}
    return RunAnswer(
        status=Status.FAILED if failed else Status.PASSED,
        choices=shipped,
        refused=refused,
        unverified=unverified,
        text=_lines(aimed, chosen, failed, refused, unverified),
        next_command=_next(context, evidence, shipped),
    )


def _aimed(config: CandidateConfig, target: Target) -> bool:
    return target is Target.AUTO or config.processor == Processor(target)


def _holds_gate(context: RunContext, evidence: Evidence, choice: Choice) -> bool:
    """Whether a choice was held to the gate that was asked for; without one there is nothing to hold."""
    asked = context.options.max_drop_points
    if asked is None:
        return True
    of_this_gate = evidence.accuracy is not None and evidence.accuracy.max_drop_points == asked
    return of_this_gate and gate_verdicts(evidence).get(plain(choice.fastest.config)) is Status.PASSED


def _earlier(steps: tuple[RunStep, ...]) -> list[str]:
    """That a measurement of this run failed, so that what is said of it is from before."""
    return [
        f"{step.name} failed in this run: what is said of it was measured before, if it was."
        for step in steps
        if step.outcome is StepOutcome.FAILED and step.name in {"parity", "accuracy", "bench"}
    ]


def _for_target(evidence: Evidence, target: Target) -> Evidence:
    """The evidence with latencies on the target's kind of processor alone, baselines included."""

    def kept(result: LatencyResult) -> LatencyResult | None:
        samples = tuple(sample for sample in result.samples if _aimed(sample.config, target))
        return dataclasses.replace(result, samples=samples) if samples else None

    sessions = tuple(found for session in evidence.sessions if (found := kept(session)) is not None)
    latency = None if evidence.latency is None else kept(evidence.latency)
    return dataclasses.replace(evidence, latency=latency, sessions=sessions)


def _comparison(evidence: Evidence, config: CandidateConfig) -> AccuracyComparison | None:
    comparisons = evidence.accuracy.comparisons if evidence.accuracy else ()
    return next((item for item in comparisons if item.config == plain(config)), None)


def _ship(choice: Choice, evidence: Evidence) -> ShipChoice:
    fastest, ratio, right = choice.fastest, choice.ratio, choice.accuracy
    drop = _comparison(evidence, fastest.config)
    return ShipChoice(
        batch=choice.batch,
        file=choice.file or "",
        sha256=fastest.artifact_sha256,
        runtime=fastest.config.runtime,
        precision=fastest.config.precision,
        name=fastest.name,
        median_ms=fastest.summary.median_ms,
        ci95_ms=fastest.summary.ci95_ms,
        baseline=choice.baseline.name if choice.baseline else None,
        speed_up=ratio.value if ratio else None,
        speed_up_ci95=ratio.ci95 if ratio else None,
        top1_percent=right.top1.percent if right else None,
        top1_ci95_percent=right.top1.ci95_percent if right else None,
        pictures=right.images if right else None,
        drop_points=drop.drop_points if drop else None,
        drop_ci95_points=drop.drop_ci95_points if drop else None,
    )


def _refused(evidence: Evidence, target: Target) -> tuple[str, ...]:
    """What failed parity or the accuracy gate."""
    found = [
        f"{why_failed(item)}: parity does not hold"
        for item in evidence.candidates
        if item.status is Status.FAILED and _aimed(item.config, target)
    ]
    accuracy = evidence.accuracy
    if accuracy is not None and accuracy.max_drop_points is not None:
        found += [
            f"{item.config.name}: top-1 drops by {item.drop_points:.2f} points, "
            f"{accuracy.max_drop_points:g} are allowed"
            for item in accuracy.comparisons
            if item.status is Status.FAILED and _aimed(item.config, target)
        ]
    return tuple(found)


def _unsteady(aimed: Evidence) -> tuple[str, ...]:
    """That latencies are known badly, where they are."""
    series = aimed.latency.samples if aimed.latency else ()
    count = sum(instability(sample.samples_ms) is not None for sample in series)
    if not count:
        return ()
    return (
        f"{count} of {len(series)} series of latencies spread or drift by more than a tenth, as on a busy "
        "machine: the intervals tell how sure the figures are of it as it was, not of a quiet one.",
    )


def _lines(
    aimed: Evidence,
    chosen: list[Choice],
    without: set[int],
    refused: tuple[str, ...],
    unverified: tuple[str, ...],
) -> str:
    said = [answer_of(choice) + _drop_text(aimed, choice) for choice in chosen]
    if aimed.latency is None:
        said.append("Nothing was timed on the target, so nothing is chosen.")
    said += map(nothing_for, sorted(without))
    measured = []
    if aimed.latency is not None:
        machine = aimed.latency.machine
        measured.append(
            f"Timed in {aimed.latency.rounds} rounds or more with {aimed.latency.threads} threads on "
            f"{'; '.join((machine.cpu, *machine.gpus))}."
        )
    measured += [
        f"Parity is against {item.reference}, on {sum(item.inputs.batches)} images "
        f"({item.inputs.description})."
        for item in aimed.parity[:1]
    ]
    said += [" ".join(measured)] if measured else []
    if refused:
        said.append(f"Not to be shipped: {'; '.join(refused)}.")
    if unverified:
        said.append("Not verified: " + " ".join(unverified))
    return "\n".join(said)


def _drop_text(evidence: Evidence, choice: Choice) -> str:
    """How much less right it is than the baseline, in a sentence; nothing where that was not measured."""
    drop = _comparison(evidence, choice.fastest.config)
    if drop is None:
        return ""
    low, high = drop.drop_ci95_points
    points = f"{drop.drop_points:+.2f} points ({low:+.2f} to {high:+.2f})"
    return f" Drop of top-1 from {drop.baseline.name}: {points}."


def _next(context: RunContext, evidence: Evidence, shipped: tuple[ShipChoice, ...]) -> tuple[str, ...]:
    """What is done next as a rule: what gives more evidence, else what uses the choice."""
    options, bundle = context.options, os.fspath(context.directory)
    if not shipped and evidence.latency is not None:
        return ("inspect", bundle)
    missing = []
    if options.calibration is None:
        missing += ["--calibration", "FOLDER"]
    if evidence.accuracy is None:
        missing += ["--data", "DIR"]
    if missing or not shipped:
        return ("run", *_again(context), *missing)
    first = shipped[0]
    runner = {
        RuntimeKind.ONNX_RUNTIME: "onnx",
        RuntimeKind.OPENVINO: "openvino",
        RuntimeKind.TENSORRT: "engine",
        RuntimeKind.PYTORCH: "torch",
    }[first.runtime]
    return ("predict", "IMAGE", bundle, "--with", runner, "--precision", str(first.precision))


def _again(context: RunContext) -> list[str]:
    """The arguments of the same run; other ones would make other artifacts, or measure again."""
    options = context.options
    usual = RunOptions(checkpoint=options.checkpoint, output=options.output)
    size = options.image_size_px
    words = [os.fspath(options.checkpoint), "-o", os.fspath(options.output)]
    for name, value, default in (
        ("--image-size", None if size is None else "x".join(map(str, size)), None),
        ("--preprocess", changes_text(options.preprocessing), ""),
        ("--target", options.target, usual.target),
        ("--calibration", options.calibration, None),
        ("--data", options.data, None),
        ("--split", options.split, usual.split),
        ("--limit", options.limit, None),
        ("--max-drop", options.max_drop_points, None),
        ("--batch", ",".join(map(str, options.batches)), ",".join(map(str, usual.batches))),
        ("--max-seconds", f"{options.max_seconds:g}", f"{usual.max_seconds:g}"),
        ("--config", options.config, None),
        ("--weights", options.weights, None),
        ("--key", options.key, None),
        ("--classes", options.class_names, None),
    ):
        words += [] if value == default else [name, str(value)]
    return [*words, "--skip-bad"] if options.skip_bad else words
