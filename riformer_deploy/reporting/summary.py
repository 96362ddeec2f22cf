"""The figures of a report, taken from records alone, and which artifact they speak for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.enums import RuntimeKind
from riformer_deploy.evaluation.accuracy_results import ArtifactAccuracy
from riformer_deploy.evaluation.latency_comparison import (
    comparable,
    compare_latency,
    ratio_of,
    strongest_baseline,
)
from riformer_deploy.evaluation.latency_rounds import Ratio
from riformer_deploy.evaluation.published import far_below
from riformer_deploy.evaluation.results import LatencyResult, LatencySamples, Status
from riformer_deploy.reporting.evidence import Answer, Evidence


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to ship for one batch size.

    Attributes:
        batch: Images per call.
        fastest: The fastest candidate that holds parity and, where one was set, the accuracy gate; where
            nobody is verified so far, the fastest that holds parity, else of those that failed neither.
        file: The bundle's file that it runs; None for what runs weights.
        parity: Its verdict; None where it was not verified.
        ratio: How many times as fast as the baseline; None where there is none to compare with.
        baseline: The strongest baseline of the batch size, if one was measured.
        same_rounds: Whether both were measured in the same rounds; if not, the ratio is of two medians that
            were taken at different times.
        accuracy: Its accuracy, if it was measured.
    """

    batch: int
    fastest: LatencySamples
    file: str | None
    parity: Status | None
    ratio: Ratio | None
    baseline: LatencySamples | None
    same_rounds: bool
    accuracy: ArtifactAccuracy | None


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """How often pictures of one class are recognised, by the baseline of the accuracy pass.

    Attributes:
        label: Number of the class.
        name: Its name, if known.
        right: Pictures that were right.
        pictures: All of the class.
    """

    label: int
    name: str | None
    right: int
    pictures: int


def choices(evidence: Evidence) -> tuple[Choice, ...]:
    """What to ship for each batch size; none where no latency was measured.

    Args:
        evidence: Of a bundle.
    """
    latency = evidence.latency
    if latency is None:
        return ()
    failed = {c.config for c in evidence.candidates if c.status is Status.FAILED}
    held = {c.config for c in evidence.candidates if c.status is Status.PASSED} - failed
    gated = gate_verdicts(evidence)
    found = []
    for comparison in compare_latency(latency):
        able = [
            s
            for s in latency.samples
            if (s.batch, s.timing) == (comparison.batch, comparison.timing)
            and s.config not in failed
            and gated.get(plain(s.config)) is not Status.FAILED
            and s.config.runtime is not RuntimeKind.PYTORCH
        ]
        if not able:
            continue
        verified = [sample for sample in able if sample.config in held]
        if gated:
            verified = [s for s in verified if plain(s.config) in gated] or verified
        fastest = min(verified or able, key=lambda sample: sample.summary.median_ms)
        baseline, ratio, same_rounds = _beside_baseline(evidence, latency, fastest)
        parity = evidence.parity_of(fastest.config)
        found.append(
            Choice(
                batch=comparison.batch,
                fastest=fastest,
                file=_file_of(evidence.manifest, fastest),
                parity=parity.status if parity else None,
                ratio=ratio,
                baseline=baseline,
                same_rounds=same_rounds,
                accuracy=accuracy_of(evidence, fastest.config),
            )
        )
    return tuple(found)


def _beside_baseline(
    evidence: Evidence, latency: LatencyResult, fastest: LatencySamples
) -> tuple[LatencySamples | None, Ratio | None, bool]:
    """The baseline, the ratio to it, and whether both had a turn in each round.

    A baseline of the same session goes first: drift of the machine falls out of that ratio.
    """
    session = evidence.session_of(fastest)
    baseline = strongest_baseline(session, fastest.batch, fastest.timing)
    if baseline is not None:
        return baseline, ratio_of(baseline, fastest, session.repeats), True
    baseline = strongest_baseline(latency, fastest.batch, fastest.timing)
    if baseline is None or not comparable(baseline) or not comparable(fastest):
        return baseline, None, False
    from riformer_deploy.evaluation.bootstrap import ratio_of_medians

    return baseline, ratio_of_medians(baseline.samples_ms, fastest.samples_ms), False


def plain(config: CandidateConfig) -> CandidateConfig:
    """As accuracy is measured of it: how an engine is launched changes no answer."""
    return replace(config, cuda_graph=False)


def gate_verdicts(evidence: Evidence) -> dict[CandidateConfig, Status]:
    """What the accuracy gate says of each artifact but the baseline; nothing where none was set."""
    accuracy = evidence.accuracy
    if accuracy is None or accuracy.max_drop_points is None:
        return {}
    return {item.config: item.status for item in accuracy.comparisons}


def _file_of(manifest: Manifest | None, sample: LatencySamples) -> str | None:
    files = manifest.files if manifest else ()
    return next((record.path for record in files if record.sha256 == sample.artifact_sha256), None)


def accuracy_of(evidence: Evidence, config: CandidateConfig) -> ArtifactAccuracy | None:
    """The accuracy of one way of running one artifact, if it was measured."""
    artifacts = evidence.accuracy.artifacts if evidence.accuracy else ()
    return next((item for item in artifacts if item.config == plain(config)), None)


def not_verified(evidence: Evidence) -> tuple[str, ...]:
    """What the bundle holds no evidence of, each in one sentence.

    Args:
        evidence: Of a bundle.
    """
    manifest = evidence.manifest
    if manifest is None:
        return ()
    said = []
    if not evidence.parity:
        said.append("Parity was not measured: nothing shows that the artifacts compute the model's function.")
    said += evidence.parity_gaps
    for result in evidence.parity:
        if result.inputs.seed is not None:
            said.append("Parity was measured on synthetic images, not on pictures.")
        said += [
            f"{item.name} did not take part in parity: {item.reason.rstrip('.')}." for item in result.skipped
        ]
    ran = {candidate.artifact_sha256 for candidate in evidence.candidates}
    idle = [engine.file.path for engine in manifest.engines if engine.file.sha256 not in ran]
    if len(idle) == 1:
        said.append(f"{idle[0]} was never run: its parity is not known.")
    elif idle:
        said.append(f"{', '.join(idle)} were never run: their parity is not known.")
    said += _accuracy_gaps(evidence)
    if evidence.latency is None:
        said.append("Latency was not measured.")
    elif not evidence.latency.machine.gpus:
        said.append("Latency was measured without a GPU.")
    said += [
        f"{graph.file.path} was calibrated on random images."
        for graph in manifest.onnx
        if graph.lowering.calibration is not None and graph.lowering.calibration.random
    ]
    return tuple(dict.fromkeys([*said, *(f"Not counted: {text}." for text in evidence.ignored)]))


def _accuracy_gaps(evidence: Evidence) -> list[str]:
    if evidence.accuracy is None:
        return ["Accuracy was not measured: how often the model is right is not known."]
    artifacts, published = evidence.accuracy.artifacts, evidence.accuracy.published
    said = []
    if published is not None and (text := far_below(artifacts[0].top1, published)) is not None:
        said.append(f"Whether the model is run as it was trained: {text}")
    measured = {item.config for item in artifacts}
    said += [
        f"The accuracy of {c.name} was not measured."
        for c in evidence.candidates
        if c.file is not None and c.runtime is not RuntimeKind.PYTORCH and c.config not in measured
    ]
    return said


_LATER = {"report.html", "MODEL_CARD.md", "run.json"}


def lasting_files(manifest: Manifest | None) -> tuple[FileRecord, ...]:
    """The bundle's files but its pages and what is written after them, whose sha256 a page cannot tell."""
    return tuple(record for record in manifest.files if record.path not in _LATER) if manifest else ()


def class_accuracy(evidence: Evidence) -> tuple[ClassAccuracy, ...]:
    """Accuracy by class of the accuracy pass's first artifact, the worst first."""
    if evidence.accuracy is None or not evidence.answers:
        return ()
    first = evidence.accuracy.artifacts[0].name
    total, right = Counter[int](), Counter[int]()
    for answer in evidence.answers:
        total[answer.label] += 1
        right[answer.label] += answer.right.get(first, False)
    names = evidence.manifest.model.class_names if evidence.manifest else None
    rows = [
        ClassAccuracy(label=label, name=name_of(names, label), right=right[label], pictures=count)
        for label, count in total.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.right / row.pictures, row.label)))


def name_of(names: tuple[str, ...] | None, label: int) -> str | None:
    """A class's name, if it is known and there is such a class."""
    return names[label] if names is not None and 0 <= label < len(names) else None


def mistakes(evidence: Evidence) -> tuple[Answer, ...]:
    """Pictures that the accuracy pass's first artifact has wrong.

    The one that it was surest of comes first; where scores are equal or not stored, the data set's order
    holds.
    """
    if evidence.accuracy is None:
        return ()
    first = evidence.accuracy.artifacts[0].name
    wrong = (answer for answer in evidence.answers if not answer.right.get(first, True))
    return tuple(sorted(wrong, key=lambda answer: -answer.score.get(first, 0.0)))
