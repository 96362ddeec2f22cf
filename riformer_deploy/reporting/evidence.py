"""What a bundle, or a result that was taken out of one, holds of measurements."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle, is_bundle
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import RecordError, load_json
from riformer_deploy.evaluation.accuracy_results import AccuracyResult
from riformer_deploy.evaluation.results import CandidateParity, LatencyResult, ParityResult

_Result = TypeVar("_Result", ParityResult, LatencyResult, AccuracyResult)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the artifacts said of one picture.

    Attributes:
        picture: Its name in the data set.
        label: Its class.
        predicted: First class of each artifact, by the artifact's name.
        right: Whether that is the picture's class, by the artifact's name.
    """

    picture: str
    label: int
    predicted: dict[str, int]
    right: dict[str, bool]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that is stored of measurements; each part may be missing.

    Attributes:
        path: The bundle's folder, or the file of the result.
        manifest: The bundle's; None for a result alone.
        parity: Of the models, and of each engine.
        latency: Latencies.
        accuracy: Accuracy.
        answers: The accuracy pass's answers, picture by picture.
    """

    path: Path
    manifest: Manifest | None = None
    parity: tuple[ParityResult, ...] = ()
    latency: LatencyResult | None = None
    accuracy: AccuracyResult | None = None
    answers: tuple[Answer, ...] = field(default=(), repr=False)

    @property
    def candidates(self) -> tuple[CandidateParity, ...]:
        """Every candidate of every parity report."""
        return tuple(candidate for result in self.parity for candidate in result.candidates)

    def parity_of(self, config: CandidateConfig) -> CandidateParity | None:
        """The verdict on one way of running one artifact, if there is one."""
        return next((c for c in self.candidates if c.config == config), None)


def read_evidence(path: Path) -> Evidence:
    """Read what is stored of measurements.

    Args:
        path: A bundle, or one of ``parity.json``, ``latency.json`` and ``accuracy.json``; beside the last one
            ``accuracy.csv`` is read, too.

    Raises:
        BundleError: It is neither, or a record in it is not valid.
        BundleIntegrityError: A result of a bundle was changed.
    """
    return _of_bundle(Bundle.open(path)) if path.is_dir() or is_bundle(path) else _of_file(path)


def _of_bundle(bundle: Bundle) -> Evidence:
    results = bundle.manifest.results

    def text_of(kind: str) -> str:
        return bundle.path_of(results[kind]).read_text(encoding="utf-8", errors="replace")

    def stored(kind: str, record: type[_Result]) -> _Result | None:
        if kind not in results:
            return None
        return _parse(record, text_of(kind), bundle.directory / results[kind].path)

    kinds = ("parity", *(engine.parity_kind for engine in bundle.manifest.engines))
    parity = [stored(kind, ParityResult) for kind in kinds]
    return Evidence(
        path=bundle.directory,
        manifest=bundle.manifest,
        parity=tuple(item for item in parity if item is not None),
        latency=stored("latency", LatencyResult),
        accuracy=stored("accuracy", AccuracyResult),
        answers=_answers(text_of("accuracy.csv") if "accuracy.csv" in results else ""),
    )


def _of_file(path: Path) -> Evidence:
    remedy = "Name a bundle, or a parity.json, latency.json or accuracy.json."
    try:
        text = path.read_text(encoding="utf-8")
        kind = json.loads(text).get("kind")
    except (OSError, ValueError, AttributeError) as err:  # no such file; no JSON; no object
        raise BundleError(f"{path} is neither a bundle nor a result: {err}", remedy=remedy) from err
    match kind:
        case "parity":
            return Evidence(path=path, parity=(_parse(ParityResult, text, path),))
        case "latency":
            return Evidence(path=path, latency=_parse(LatencyResult, text, path))
        case "accuracy":
            table = path.with_suffix(".csv")
            answers = table.read_text(encoding="utf-8", errors="replace") if table.is_file() else ""
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


def _answers(text: str) -> tuple[Answer, ...]:
    """The rows of ``accuracy.csv``; none where it has other columns than this version writes."""
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        names = [column.removesuffix(": class") for column in row if column and column.endswith(": class")]
        try:
            found.append(
                Answer(
                    picture=row["picture"],
                    label=int(row["label"]),
                    predicted={name: int(row[f"{name}: class"]) for name in names},
                    right={name: int(row[f"{name}: place"]) == 0 for name in names},
                )
            )
        except (KeyError, TypeError, ValueError):
            return ()
    return tuple(found)
