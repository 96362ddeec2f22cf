"""What a bundle, or a result that was taken out of one, holds of measurements."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import MOST_RESULT_BYTES, Bundle, is_bundle
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.files import read_regular
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.common.serialization import RecordError, load_json, parse_json
from riformer_deploy.evaluation.accuracy_results import ANSWERS, AccuracyResult
from riformer_deploy.evaluation.evidence import (
    contradictions,
    not_verified,
    of_another_model,
    ran_another_file,
)
from riformer_deploy.evaluation.latency_sessions import standing_sessions
from riformer_deploy.evaluation.results import (
    CandidateParity,
    LatencyResult,
    LatencySamples,
    ParityResult,
    Status,
    files_status,
)
from riformer_deploy.quantization.tune_result import KINDS, TuneResult

_Result = TypeVar("_Result", ParityResult, LatencyResult, AccuracyResult, TuneResult)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the artifacts said of one picture.

    Attributes:
        picture: Its name in the data set.
        label: Its class.
        predicted: First class of each artifact, by the artifact's name.
        right: Whether that is the picture's class, by the artifact's name.
        score: How sure each artifact was of its first class, a softmax probability, by the artifact's name;
            empty where the table was written before scores were stored.
    """

    picture: str
    label: int
    predicted: dict[str, int]
    right: dict[str, bool]
    score: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is stored of measurements; each part may be missing.

    Attributes:
        path: The bundle's folder, or the file of the result.
        manifest: The bundle's; None for a result alone.
        parity: Of the models, and of each engine; of a bundle, what is about its own files.
        parity_gaps: Why the bundle's reports verify not all that it holds, each in one sentence.
        latency: Every series of ``sessions`` as one result, which is not that of one session: ratios within
            rounds are to be taken from :meth:`session_of`.
        sessions: Latencies that were measured side by side, newest first, each with what no later one
            measured again.
        accuracy: Accuracy.
        answers: The accuracy pass's answers, picture by picture.
        ignored: What is stored and does not count, since it is about files that the bundle does not hold or
            of another machine; each in one sentence.
        tuning: Searches, one for each target.
    """

    path: Path
    manifest: Manifest | None = None
    parity: tuple[ParityResult, ...] = ()
    parity_gaps: tuple[str, ...] = ()
    latency: LatencyResult | None = None
    sessions: tuple[LatencyResult, ...] = ()
    accuracy: AccuracyResult | None = None
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    ignored: tuple[str, ...] = ()
    tuning: tuple[TuneResult, ...] = ()

    @property
    def candidates(self) -> tuple[CandidateParity, ...]:
        """Every candidate of every parity report."""
        return tuple(candidate for result in self.parity for candidate in result.candidates)

    def parity_of(self, config: CandidateConfig) -> CandidateParity | None:
        """The verdict on one way of running one artifact, if there is one."""
        return next((c for c in self.candidates if c.config == config), None)

    def session_of(self, sample: LatencySamples) -> LatencyResult:
        """The session that a series of ``latency`` was measured in."""
        found = (session for session in self.sessions if any(item is sample for item in session.samples))
        session = next(found, self.latency)
        if session is None:
            raise ValueError(f"{sample.name} is no series of these latencies")
        return session


def read_evidence(path: Path) -> Evidence:
    """Read what is stored of measurements.

    Args:
        path: A bundle, or one of ``parity.json``, ``latency.json`` and ``accuracy.json``; beside the last one
            ``accuracy.csv`` is read, too.

    Raises:
        BundleError: It is neither, or a record in it is not valid.
        BundleIntegrityError: A result of a bundle was changed.
    """
    return evidence_of(Bundle.open(path)) if path.is_dir() or is_bundle(path) else _of_file(path)


def evidence_of(bundle: Bundle) -> Evidence:
    """As :func:`read_evidence`, of a bundle that is open."""
    results = bundle.manifest.results

    def text_of(kind: str) -> str:
        return bundle.text(results[kind], errors="replace")

    def stored(kind: str, record: type[_Result]) -> _Result | None:
        if kind not in results:
            return None
        return _parse(record, text_of(kind), bundle.directory / results[kind].path)

    manifest = bundle.manifest
    ignored: list[str] = []
    gaps: list[str] = []
    parity = []
    about: dict[str, tuple[FileRecord, ...] | None] = {"parity": None}
    for kind, files in (about | {item.parity_kind: (item.file,) for item in manifest.engines}).items():
        if kind in results:
            path = results[kind].path
            result = _counting_parity(
                manifest, _parity(text_of(kind), bundle.directory / path), path, ignored
            )
            parity.append(result)
            if result is not None:
                gaps += [f"{path}: {text}." for text in not_verified(manifest, result, files)]
    sessions, left_out = standing_sessions(bundle)
    tuning = [stored(kind, TuneResult) for kind in KINDS.values()]
    accuracy = _counting_accuracy(manifest, stored("accuracy", AccuracyResult), ignored)
    table = text_of(ANSWERS) if accuracy is not None and ANSWERS in results else ""
    return Evidence(
        path=bundle.directory,
        manifest=manifest,
        parity=tuple(item for item in parity if item is not None),
        parity_gaps=tuple(gaps),
        latency=_merged(sessions),
        sessions=sessions,
        accuracy=accuracy,
        answers=_answers(table),
        ignored=(*ignored, *left_out),
        tuning=tuple(item for item in tuning if item is not None),
    )


def _merged(sessions: tuple[LatencyResult, ...]) -> LatencyResult | None:
    if not sessions:
        return None
    return dataclasses.replace(
        sessions[0],
        rounds=min(session.rounds for session in sessions),
        samples=tuple(item for session in sessions for item in session.samples),
        skipped=tuple(item for session in sessions for item in session.skipped),
    )


def _counting_parity(
    manifest: Manifest, result: ParityResult, path: str, ignored: list[str]
) -> ParityResult | None:
    """A parity report with the verdicts on files that the bundle holds."""
    if wrong := of_another_model(manifest, result):
        ignored += [f"{path}: {text}" for text in wrong]
        return None
    kept = tuple(c for c in result.candidates if not ran_another_file(manifest, c))
    gone = [c.name for c in result.candidates if c not in kept]
    if gone:
        ignored.append(f"{path}: {', '.join(gone)}: ran a file that is replaced")
    return dataclasses.replace(result, candidates=kept, status=files_status(kept)) if kept else None


def _counting_accuracy(
    manifest: Manifest, result: AccuracyResult | None, ignored: list[str]
) -> AccuracyResult | None:
    """The accuracy of files that the bundle holds; none where what others are compared with is gone."""
    if result is None:
        return None
    present = {record.sha256 for record in manifest.files}
    gone = [item for item in result.artifacts if item.artifact_sha256 not in present]
    if not gone:
        return result
    names = ", ".join(item.name for item in gone)
    ignored.append(f"{manifest.results['accuracy'].path}: {names}: measured of a file that is replaced")
    if result.artifacts[0] in gone:
        return None
    left = {item.config for item in gone}
    comparisons = tuple(item for item in result.comparisons if item.config not in left)
    failed = any(item.status is Status.FAILED for item in comparisons)
    return dataclasses.replace(
        result,
        artifacts=tuple(item for item in result.artifacts if item not in gone),
        comparisons=comparisons,
        status=Status.FAILED if failed else Status.PASSED,
    )


def _of_file(path: Path) -> Evidence:
    remedy = "Name a bundle, or a parity.json, latency.json or accuracy.json."
    try:
        text = read_regular(path, MOST_RESULT_BYTES).decode("utf-8")
        data = parse_json(text)
    except (OSError, ValueError) as err:  # no such file; no text; no JSON
        why = reason_of(err)
        raise BundleError(f"{path} is neither a bundle nor a result: {why}", remedy=remedy) from err
    kind = data.get("kind") if isinstance(data, dict) else None
    match kind:
        case "parity":
            return Evidence(path=path, parity=(_parity(text, path),))
        case "latency":
            return Evidence(path=path, latency=_parse(LatencyResult, text, path))
        case "accuracy":
            table = path.with_suffix(".csv")
            answers = ""
            with contextlib.suppress(OSError):  # it only says which pictures
                answers = read_regular(table, MOST_RESULT_BYTES).decode("utf-8", errors="replace")
            return Evidence(path=path, accuracy=_parse(AccuracyResult, text, path), answers=_answers(answers))
        case _:
            raise BundleError(f"{path} is no result: its kind is {kind!r}.", remedy=remedy)


def _parse(record: type[_Result], text: str, path: Path) -> _Result:
    try:
        return load_json(record, text)
    except RecordError as err:
        raise BundleError(
            f"{path} is no valid result.", details=err.problems, remedy="Measure it anew with this version."
        ) from err


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text} is no probability")
    return value


def _parity(text: str, path: Path) -> ParityResult:
    """A report whose verdicts follow from its figures."""
    result = _parse(ParityResult, text, path)
    if wrong := contradictions(result):
        raise BundleError(
            f"{path} is no valid result: it contradicts itself.",
            details=wrong,
            remedy="Measure it anew: `riformer-deploy verify parity`.",
        )
    return result


def _answers(text: str) -> tuple[Answer, ...]:
    """The rows of ``accuracy.csv``; none where it has other columns than this version writes."""
    found = []
    try:
        for row in csv.DictReader(io.StringIO(text)):
            names = [
                column.removesuffix(": class") for column in row if column and column.endswith(": class")
            ]
            found.append(
                Answer(
                    picture=row["picture"],
                    label=int(row["label"]),
                    predicted={name: int(row[f"{name}: class"]) for name in names},
                    right={name: int(row[f"{name}: place"]) == 0 for name in names},
                    score={name: _score(row[f"{name}: score"]) for name in names if f"{name}: score" in row},
                )
            )
    except (KeyError, TypeError, ValueError, csv.Error):
        return ()
    return tuple(found)
