"""What of a bundle's results still holds beside new files: those of files that stay, byte for byte."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.run_records import RUN
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.evaluation.accuracy_results import ANSWER_COLUMNS, ANSWERS, AccuracyResult
from riformer_deploy.evaluation.latency_sessions import read_session, session_kinds
from riformer_deploy.evaluation.results import ParityResult
from riformer_deploy.quantization.tune_result import KINDS, TuneResult


def _latency(
    bundle: Bundle, record: FileRecord, present: Collection[str], staged: Path, dropped: list[str]
) -> FileRecord | None:
    """A session with those of its series that are of files which are still there."""
    session = read_session(bundle, record)
    kept = tuple(item for item in session.samples if item.artifact_sha256 in present)
    if len(kept) == len(session.samples):
        return record
    gone = sorted({item.name for item in session.samples if item.artifact_sha256 not in present})
    dropped.append(f"{record.path}: {', '.join(gone)}: measured of a file that is replaced")
    if not kept:
        return None
    (staged / record.path).write_text(dump_json(dataclasses.replace(session, samples=kept)), encoding="utf-8")
    return record_file(staged / record.path, record.parent_sha256)


def _without(names: Collection[str], text: str) -> str:
    """A table of answers without the columns of these artifacts."""
    rows = list(csv.reader(io.StringIO(text)))
    gone = {f"{name}: {what}" for name in names for what in ANSWER_COLUMNS}
    places = [number for number, column in enumerate(rows[0] if rows else ()) if column not in gone]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([row[number] for number in places] for row in rows)
    return stream.getvalue()


def _accuracy(
    bundle: Bundle, record: FileRecord, present: Collection[str], staged: Path, dropped: list[str]
) -> dict[str, FileRecord]:
    """A pass with those of its artifacts that are still there, and its table of answers likewise."""
    table = bundle.manifest.results.get(ANSWERS)
    try:
        before = load_json(AccuracyResult, bundle.text(record))
        kept = before.of_files(present)
    except (RecordError, UnicodeDecodeError, ValueError) as err:
        raise BundleError(f"it is no valid result: {err}") from err
    if kept == before:
        return {"accuracy": record} | ({} if table is None else {ANSWERS: table})
    if kept is None:
        return {}
    gone = [item.name for item in before.artifacts if item not in kept.artifacts]
    dropped.append(f"{record.path}: {', '.join(gone)}: measured of a file that is replaced")
    (staged / record.path).write_text(dump_json(kept), encoding="utf-8")
    found = {"accuracy": record_file(staged / record.path, record.parent_sha256)}
    if table is not None:
        try:
            text = _without(gone, bundle.read(table).decode("utf-8", "surrogateescape"))
        except (BundleError, csv.Error, IndexError) as err:
            dropped.append(f"{table.path}: it cannot be read: {err}")
            return found
        (staged / table.path).write_text(text, encoding="utf-8", errors="surrogateescape")
        found[ANSWERS] = record_file(staged / table.path, found["accuracy"].sha256)
    return found


def _whole(
    read: Callable[[str], Collection[str]], bundle: Bundle, record: FileRecord, present: Collection[str]
) -> FileRecord | None:
    """A result as it is, if all the files that it is about are still there."""
    try:
        artifacts = read(bundle.text(record))
    except (RecordError, UnicodeDecodeError) as err:
        raise BundleError(f"it is no valid result: {err}") from err
    return record if set(artifacts) <= set(present) else None


def _compared(text: str) -> list[str]:
    return [item.artifact_sha256 for item in load_json(ParityResult, text).candidates]


def _tuned(text: str) -> list[str]:
    found = load_json(TuneResult, text)
    return [found.artifact_sha256, *([] if found.engine_sha256 is None else [found.engine_sha256])]


@dataclass(frozen=True, kw_only=True)
class _Change:
    """New files, beside which earlier results may stay."""

    bundle: Bundle
    present: Collection[str]
    reference_sha256: str
    staged: Path

    def stays(self, kind: str, record: FileRecord, dropped: list[str]) -> dict[str, FileRecord]:
        """The result as it stays, if it does, with its tables; raises BundleError where it cannot be read."""
        if kind == "accuracy":
            return _accuracy(self.bundle, record, self.present, self.staged, dropped)
        found = self._alone(kind, record, dropped)
        return {} if found is None else {kind: found}

    def _alone(self, kind: str, record: FileRecord, dropped: list[str]) -> FileRecord | None:
        engines = {engine.parity_kind: engine.file.sha256 for engine in self.bundle.manifest.engines}
        if kind in session_kinds(self.bundle.manifest):
            return _latency(self.bundle, record, self.present, self.staged, dropped)
        if record.parent_sha256 != self.reference_sha256:
            return None
        if kind == RUN:  # each part of it names what it is about
            return record
        if kind in KINDS.values() or kind == "parity-user":
            read = _compared if kind == "parity-user" else _tuned
            return _whole(read, self.bundle, record, self.present)
        return record if engines.get(kind) in self.present else None


def kept_results(
    bundle: Bundle,
    present: Collection[str],
    reference_sha256: str,
    staged: Path,
    *,
    answers_changed: str = "",
    parity_stays: bool = False,
) -> tuple[dict[str, FileRecord], tuple[str, ...]]:
    """The results that are about what a bundle holds after a change, too.

    Args:
        bundle: As it was.
        present: sha256 of every file of weights, graph and engine that the new one holds.
        reference_sha256: Of the new one's reference weights.
        staged: The folder that the new files are gathered in.
        answers_changed: Why accuracy would be another with the same files, such as other preprocessing.
        parity_stays: Whether the parity report of graphs stays, too; every export writes a new one.

    Returns:
        The results by kind, and what is dropped, each with the reason.
    """
    change = _Change(bundle=bundle, present=present, reference_sha256=reference_sha256, staged=staged)
    kept: dict[str, FileRecord] = {}
    dropped: list[str] = []
    for kind, record in bundle.manifest.results.items():
        if kind == "parity":
            kept |= {kind: record} if parity_stays else {}
            continue
        if kind in kept or (kind == ANSWERS and "accuracy" in kept):  # a table comes with its result
            continue
        if kind == "accuracy" and answers_changed:
            dropped.append(f"{record.path}: {answers_changed}")
            continue
        if record.parent_sha256 in {item.sha256 for item in kept.values()}:  # a table of one that stays
            kept[kind] = record
            continue
        count = len(dropped)
        try:
            found = change.stays(kind, record, dropped)
        except BundleError as err:
            found = {}
            dropped.append(f"{record.path}: {err.message}")
        if found:
            kept |= found
        elif len(dropped) == count:
            page = Path(record.path).suffix in {".html", ".md"}
            why = "it tells what was measured before" if page else "it is about files that are replaced"
            dropped.append(f"{record.path}: {why}")
    return kept, tuple(dropped)
