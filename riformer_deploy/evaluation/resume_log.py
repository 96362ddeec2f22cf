"""A pass over many pictures that can be taken up again after a kill: one line is appended a batch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.files import FileTooLargeError, NotRegularFileError, holder_of
from riformer_deploy.common.serialization import JsonValue, RecordError, load_json

MOST_BYTES = 2**28
"""A million pictures and four artifacts take two fifths of it."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What artifacts said of consecutive pictures.

    Attributes:
        start: Number of the first picture.
        count: How many, broken ones included.
        usable: Numbers of those that were run.
        predicted: First class of each usable picture, for each artifact; -1 where scores are not finite.
        scores: Softmax probability of that class, from 0 to 1; 0 where scores are not finite.
        places: Place of the right class of each usable picture, for each artifact; 0 is the first.
        broken: Reasons by number, for the others.
    """

    start: int
    count: int
    usable: tuple[int, ...]
    predicted: tuple[tuple[int, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    places: tuple[tuple[int, ...], ...]
    broken: dict[str, str]

    def __post_init__(self) -> None:
        columns = (self.predicted, self.scores, self.places)
        if len(set(map(len, columns))) != 1 or any(
            len(row) != len(self.usable) for column in columns for row in column
        ):
            raise ValueError("answers are missing")
        numbers = sorted([*self.usable, *map(int, self.broken)])
        if self.count != len(numbers) or numbers != list(range(self.start, self.start + len(numbers))):
            raise ValueError("pictures are missing")


def answers_fit(answers: Answers, labels: Sequence[int], classes: int | None, artifacts: int) -> bool:
    """Whether answers can be those of artifacts on a data set: its pictures, its labels, their classes.

    Args:
        answers: Read from a file.
        labels: Of the data set's pictures, in order.
        classes: How many the model has; None where that is not known.
        artifacts: How many take part.
    """
    if len(answers.predicted) != artifacts or answers.start + answers.count > len(labels):
        return False
    last = float("inf") if classes is None else classes
    for predicted, scores, places in zip(answers.predicted, answers.scores, answers.places, strict=True):
        for number, first, score, place in zip(answers.usable, predicted, scores, places, strict=True):
            # scores that are not finite have no first class, and put the right one behind all others
            within = -1 <= first < last and 0 <= place <= last and 0 <= score <= 1
            if not within or (place == 0) != (first == labels[number]) or (first == -1 and score > 0):
                return False
    return True


def key_of(parts: JsonValue) -> str:
    """A name for everything that answers depend on; other parts, another resume log."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ResumeLog:
    """Answers on disk, in the order of the pictures.

    Args:
        path: The file; a new one is created. A link, or a file that has another name too, is refused: what
            is appended would go elsewhere.
        key: From :func:`key_of`; a file that was written for another key is begun anew.
        fits: Whether answers can be of this pass; see :func:`answers_fit`.

    Attributes:
        answers: Those that the file held when it was opened, up to the first line that was not
            written whole or does not fit.

    Raises:
        BundleError: Another pass is writing this resume log.
        OSError: The file cannot be written, is no plain file, or holds more than ``MOST_BYTES``.
    """

    def __init__(self, path: Path, key: str, fits: Callable[[Answers], bool] = lambda _: True) -> None:
        self._path = path
        with contextlib.ExitStack() as opening:
            self._file: IO[bytes] = opening.enter_context(_open_own(path))
            self.answers, kept_bytes = self._read(key, fits)
            self._file.truncate(kept_bytes)
            if kept_bytes == 0:
                self._append(json.dumps({"key": key}))
            self._open = opening.pop_all()

    def _read(self, key: str, fits: Callable[[Answers], bool]) -> tuple[tuple[Answers, ...], int]:
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
            if not fits(answers):
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
            "scores": answers.scores,
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


def _check_own(path: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise NotRegularFileError(errno.EINVAL, "is not a plain file with one name", str(path))
    if status.st_size > MOST_BYTES:
        raise FileTooLargeError(errno.EFBIG, f"holds more than {MOST_BYTES:,} bytes", str(path))


def _open_own(path: Path) -> IO[bytes]:
    """A file to read and append to, created if need be, and locked."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            _check_own(path, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return os.fdopen(descriptor, "a+b")
        except BlockingIOError as err:
            os.close(descriptor)
            raise BundleError(
                f"Another pass over the same pictures is writing {path}: {holder_of(path) or 'a process'}.",
                remedy="Wait for it, or stop it.",
            ) from err
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # a finished pass removed it between opening and locking


def joined(batches: Sequence[Answers]) -> Answers:
    """Consecutive answers as one; of one artifact set, at least one batch."""
    artifacts = range(len(batches[0].predicted))
    return Answers(
        start=batches[0].start,
        count=sum(item.count for item in batches),
        usable=tuple(number for item in batches for number in item.usable),
        predicted=tuple(tuple(v for item in batches for v in item.predicted[a]) for a in artifacts),
        scores=tuple(tuple(v for item in batches for v in item.scores[a]) for a in artifacts),
        places=tuple(tuple(v for item in batches for v in item.places[a]) for a in artifacts),
        broken={number: why for item in batches for number, why in item.broken.items()},
    )
