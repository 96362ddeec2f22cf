"""A pass over many pictures that can be taken up again after a kill: one line is appended a batch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.files import locked
from riformer_deploy.common.serialization import JsonValue, RecordError, load_json


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What artifacts said of consecutive pictures.

    Attributes:
        start: Number of the first picture.
        count: How many, broken ones included.
        usable: Numbers of those that were run.
        predicted: First class of each usable picture, for each artifact; -1 where scores are not finite.
        places: Place of the right class of each usable picture, for each artifact; 0 is the first.
        broken: Reasons by number, for the others.
    """

    start: int
    count: int
    usable: tuple[int, ...]
    predicted: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]
    broken: dict[str, str]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.usable) for row in (*self.predicted, *self.places)):
            raise ValueError("answers are missing")
        numbers = sorted([*self.usable, *map(int, self.broken)])
        if numbers != list(range(self.start, self.start + self.count)):
            raise ValueError("pictures are missing")


def key_of(parts: JsonValue) -> str:
    """A name for everything that answers depend on; other parts, another resume log."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ResumeLog:
    """Answers on disk, in the order of the pictures.

    Args:
        path: The file; a new one is created.
        key: From :func:`key_of`; a file that was written for another key is begun anew.

    Attributes:
        answers: Those that the file held when it was opened, up to the first line that was not
            written whole.

    Raises:
        BundleError: Another pass is writing this resume log.
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._open = contextlib.ExitStack()
        self._file: IO[bytes] = self._open.enter_context(path.open("a+b"))
        try:
            self._open.enter_context(locked(path, blocking=False))
        except BlockingIOError as err:
            self._open.close()
            raise BundleError(
                f"Another pass over the same pictures is writing {path}.", remedy="Wait for it, or stop it."
            ) from err
        self.answers, kept_bytes = self._read(key)
        self._file.truncate(kept_bytes)
        if kept_bytes == 0:
            self._append(json.dumps({"key": key}))

    def _read(self, key: str) -> tuple[tuple[Answers, ...], int]:
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        if not lines or lines[0] != (json.dumps({"key": key}) + "\n").encode():
            return (), 0
        found: list[Answers] = []
        kept = len(lines[0])
        for line in lines[1:]:
            try:
                answers = load_json(Answers, line.decode("utf-8")) if line.endswith(b"\n") else None
            except (RecordError, UnicodeDecodeError):
                answers = None
            if answers is None or answers.start != (found[-1].start + found[-1].count if found else 0):
                break
            found.append(answers)
            kept += len(line)
        return tuple(found), kept

    def _append(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def add(self, answers: Answers) -> None:
        """Append a batch's answers; a kill after this keeps them."""
        record = {
            "start": answers.start,
            "count": answers.count,
            "usable": answers.usable,
            "predicted": answers.predicted,
            "places": answers.places,
            "broken": answers.broken,
        }
        self._append(json.dumps(record))

    def close(self, *, finished: bool) -> None:
        """Let go of the file, and remove it if it is not needed any more."""
        if finished:
            self._path.unlink(missing_ok=True)
        else:
            os.fsync(self._file.fileno())
        self._open.close()


def joined(batches: Sequence[Answers]) -> Answers:
    """Consecutive answers as one; of one artifact set, at least one batch."""
    artifacts = range(len(batches[0].predicted))
    return Answers(
        start=batches[0].start,
        count=sum(item.count for item in batches),
        usable=tuple(number for item in batches for number in item.usable),
        predicted=tuple(tuple(v for item in batches for v in item.predicted[a]) for a in artifacts),
        places=tuple(tuple(v for item in batches for v in item.places[a]) for a in artifacts),
        broken={number: why for item in batches for number, why in item.broken.items()},
    )
