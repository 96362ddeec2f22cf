"""Sessions of latencies that a bundle keeps: each is one record of what was measured side by side.

``latency.json`` is the newest. An earlier one stays as ``latency-N.json`` while it holds a series of an
artifact of the bundle that no later session measured again, under the same conditions. Sessions are never
merged: ratios mean something only between series that were measured in the same rounds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.common.serialization import RecordError, load_json
from riformer_deploy.evaluation.results import LatencyResult, LatencySamples

NEWEST = "latency"
_NAMED = 4
"""Series that a message names; of a session with more, the number says the rest."""
_EARLIER = re.compile(r"latency-([1-9][0-9]*)")


def _number(kind: str) -> int:
    match = _EARLIER.fullmatch(kind)
    return int(match[1]) if match else 0


def session_kinds(manifest: Manifest) -> tuple[str, ...]:
    """Kinds of a bundle's results that are sessions of latencies, newest first."""
    earlier = sorted((kind for kind in manifest.results if _number(kind)), key=_number, reverse=True)
    return (*([NEWEST] if NEWEST in manifest.results else []), *earlier)


def read_session(bundle: Bundle, record: FileRecord) -> LatencyResult:
    """A stored session.

    Args:
        bundle: Open.
        record: One of its results, of a kind of :func:`session_kinds`.

    Raises:
        BundleError: The file was changed, or is of another schema.
    """
    try:
        return load_json(LatencyResult, bundle.text(record))
    except (RecordError, UnicodeDecodeError) as err:
        raise BundleError(f"{bundle.directory / record.path} is no valid result: {err}") from err


@dataclass(frozen=True, kw_only=True)
class Series:
    """What is measured anew by a later series that equals it.

    Attributes:
        config: What was run, and how.
        batch: Images per call.
        artifact_sha256: Of the file that was run.
        conditions: Processor, cores, GPUs and threads. Versions of libraries are not among them: a newer
            one's figures take the place of an older one's.
    """

    config: CandidateConfig
    batch: int
    artifact_sha256: str
    conditions: tuple[object, ...]


def series_of(session: LatencyResult) -> frozenset[Series]:
    """The series of a session, whatever of them was timed."""
    return frozenset(_series(session, item) for item in session.samples)


def _series(session: LatencyResult, item: LatencySamples) -> Series:
    machine = session.machine
    return Series(
        config=item.config,
        batch=item.batch,
        artifact_sha256=item.artifact_sha256,
        conditions=(machine.cpu, machine.cores, machine.gpus, session.threads),
    )


def standing_sessions(bundle: Bundle) -> tuple[tuple[LatencyResult, ...], tuple[str, ...]]:
    """The sessions of a bundle, each with the series alone that stand for what it holds.

    Left out are series of files that are not in the bundle, such as an engine that was built anew, series
    that a later session measured again, and sessions under other conditions than the newest: figures of two
    machines say nothing side by side.

    Args:
        bundle: Open.

    Returns:
        Sessions that have any, newest first, and what was left out that no later session stands for, each
        with the reason.

    Raises:
        BundleError: As :func:`read_session`.
    """
    manifest = bundle.manifest
    present = {record.sha256 for record in manifest.files}
    standing: list[LatencyResult] = []
    seen: set[Series] = set()
    notes: list[str] = []
    for kind in session_kinds(manifest):
        record = manifest.results[kind]
        session = read_session(bundle, record)
        if standing and _conditions(session) != _conditions(standing[0]):
            notes.append(f"{record.path}: measured on another machine or with other threads than the newest")
            continue
        gone = sorted({item.name for item in session.samples if item.artifact_sha256 not in present})
        if gone:
            notes.append(f"{record.path}: {', '.join(gone)}: measured of a file that is replaced")
        kept = tuple(
            item
            for item in session.samples
            if item.artifact_sha256 in present and _series(session, item) not in seen
        )
        seen |= series_of(session)
        if kept:
            standing.append(dataclasses.replace(session, samples=kept))
    return tuple(standing), tuple(notes)


def _conditions(session: LatencyResult) -> tuple[object, ...]:
    machine = session.machine
    return machine.cpu, machine.cores, machine.gpus, session.threads, session.inputs.image_size_px


def store_session(bundle: Bundle, session: LatencyResult, tell: Progress = silent) -> None:
    """Store a session as the newest; earlier ones stay while they hold what was not measured again.

    Args:
        bundle: Open.
        session: What was measured.
        tell: Called with what stays and what is dropped.

    Raises:
        BundleError: The bundle cannot be written.
    """
    told: list[str] = []

    def beside(current: Manifest, staged: Path) -> dict[str, FileRecord]:
        told.clear()
        return _earlier(Bundle(bundle.directory, current), staged, series_of(session), told)

    store_result(bundle, NEWEST, session, beside=beside)
    for text in told:
        tell(text)


def _earlier(
    bundle: Bundle, staged: Path, measured: Collection[Series], told: list[str]
) -> dict[str, FileRecord]:
    """The bundle's results without sessions that have nothing of their own; the newest gets a number."""
    manifest = bundle.manifest
    present = {record.sha256 for record in manifest.files}
    kinds = session_kinds(manifest)
    results = {kind: record for kind, record in manifest.results.items() if kind not in kinds}
    seen = set(measured)
    free = 1 + max(map(_number, kinds), default=0)
    for kind in kinds:
        record = manifest.results[kind]
        try:
            found = read_session(bundle, record)
        except BundleError as err:
            told.append(f"dropped from the bundle: {record.path}: {err.message}")
            continue
        own = {item for item in series_of(found) if item.artifact_sha256 in present} - seen
        if not own:
            told.append(f"{record.path} of {found.created_utc} is replaced: all of it was measured again")
            continue
        seen |= own
        if kind == NEWEST:
            kind = f"{NEWEST}-{free}"  # noqa: PLW2901  # its new name
            (staged / f"{kind}.json").write_bytes(bundle.read(record))
            record = record_file(staged / f"{kind}.json", record.parent_sha256)
        results[kind] = record
        names = sorted({f"{item.config.name}, batch {item.batch}" for item in own})
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        told.append(
            f"{record.path} keeps the session of {found.created_utc}, for {'; '.join(names[:_NAMED])}{more}"
        )
    return results
