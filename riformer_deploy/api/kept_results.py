"""What of a bundle's results still holds after an export: those of files that are the same, byte for byte."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.run_records import RUN
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.evaluation.accuracy_results import AccuracyResult
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


def _whole(
    read: Callable[[str], Collection[str]], bundle: Bundle, record: FileRecord, present: Collection[str]
) -> FileRecord | None:
    """A result as it is, if all the files that it is about are still there."""
    try:
        artifacts = read(bundle.text(record))
    except (RecordError, UnicodeDecodeError) as err:
        raise BundleError(f"it is no valid result: {err}") from err
    return record if set(artifacts) <= set(present) else None


def _measured(text: str) -> list[str]:
    return [item.artifact_sha256 for item in load_json(AccuracyResult, text).artifacts]


def _compared(text: str) -> list[str]:
    return [item.artifact_sha256 for item in load_json(ParityResult, text).candidates]


def _tuned(text: str) -> list[str]:
    found = load_json(TuneResult, text)
    return [found.artifact_sha256, *([] if found.engine_sha256 is None else [found.engine_sha256])]


@dataclass(frozen=True, kw_only=True)
class _Export:
    """A new export, beside which results of an earlier one may stay."""

    bundle: Bundle
    present: Collection[str]
    reference_sha256: str
    staged: Path

    def stays(self, kind: str, record: FileRecord, dropped: list[str]) -> FileRecord | None:
        """The result as it stays, if it does; raises BundleError where it cannot be read."""
        engines = {engine.parity_kind: engine.file.sha256 for engine in self.bundle.manifest.engines}
        if kind in session_kinds(self.bundle.manifest):
            return _latency(self.bundle, record, self.present, self.staged, dropped)
        if kind == "accuracy":
            return _whole(_measured, self.bundle, record, self.present)
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
) -> tuple[dict[str, FileRecord], tuple[str, ...]]:
    """The results of an earlier export that are about what a new one holds, too; its parity report is not.

    Args:
        bundle: As it was.
        present: sha256 of every file of weights, graph and engine that the new one holds.
        reference_sha256: Of the new one's reference weights.
        staged: The folder that the new files are gathered in.
        answers_changed: Why accuracy would be another with the same files, such as other preprocessing.

    Returns:
        The results by kind, and what is dropped, each with the reason.
    """
    export = _Export(bundle=bundle, present=present, reference_sha256=reference_sha256, staged=staged)
    kept: dict[str, FileRecord] = {}
    dropped: list[str] = []
    for kind, record in bundle.manifest.results.items():
        if kind == "parity":  # every export writes a new one
            continue
        if kind == "accuracy" and answers_changed:
            dropped.append(f"{record.path}: {answers_changed}")
            continue
        if record.parent_sha256 in {item.sha256 for item in kept.values()}:  # a table of one that stays
            kept[kind] = record
            continue
        count = len(dropped)
        try:
            found = export.stays(kind, record, dropped)
        except BundleError as err:
            found = None
            dropped.append(f"{record.path}: {err.message}")
        if found is not None:
            kept[kind] = found
        elif len(dropped) == count:
            page = Path(record.path).suffix in {".html", ".md"}
            why = "it tells what was measured before" if page else "it is about files that are replaced"
            dropped.append(f"{record.path}: {why}")
    return kept, tuple(dropped)
