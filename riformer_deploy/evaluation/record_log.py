"""A file of records that survives a kill: a line of JSON each, read up to the first that is not whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Generic, TypeVar

from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.files import FileTooLargeError, NotRegularFileError, holder_of
from riformer_deploy.common.serialization import RecordError, load_json, to_jsonable

MOST_BYTES = 2**28
"""A million pictures and four artifacts take a quarter of it."""

Record = TypeVar("Record")


class RecordLog(Generic[Record]):
    """Records on disk, in order.

    Args:
        path: The file; a new one is created. A link, or a file that has another name too, is refused: what
            is appended would go elsewhere.
        key: What the records depend on; a file that was written for another key is begun anew.
        kind: Of the records, a dataclass.
        fits: Whether a record can follow the ones before it.
        work: What is logged, for the message where another process is at it.

    Attributes:
        records: Those that the file held when it was opened, up to the first line that was not written whole
            or does not fit.

    Raises:
        BundleError: Another process is writing this log.
        OSError: The file cannot be written, is no plain file, or holds more than ``MOST_BYTES``.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        kind: type[Record],
        fits: Callable[[Record, Sequence[Record]], bool],
        work: str,
    ) -> None:
        self._path = path
        with contextlib.ExitStack() as opening:
            self._file: IO[bytes] = opening.enter_context(_open_own(path, work))
            self.records, kept_bytes = self._read(key, kind, fits)
            self._file.truncate(kept_bytes)
            if kept_bytes == 0:
                self._append(json.dumps({"key": key}))
            self._open = opening.pop_all()
        self._empty = not self.records

    def _read(
        self, key: str, kind: type[Record], fits: Callable[[Record, Sequence[Record]], bool]
    ) -> tuple[tuple[Record, ...], int]:
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        if not lines or lines[0] != (json.dumps({"key": key}) + "\n").encode():
            return (), 0
        found: list[Record] = []
        kept = len(lines[0])
        for line in lines[1:]:
            try:
                record = load_json(kind, line.decode("utf-8")) if line.endswith(b"\n") else None
            except (RecordError, UnicodeDecodeError):
                record = None
            if record is None or not fits(record, found):
                break
            found.append(record)
            kept += len(line)
        return tuple(found), kept

    def _append(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def add(self, record: Record) -> None:
        """Append a record; a kill after this keeps it."""
        self._empty = False
        self._append(json.dumps(to_jsonable(record)))

    def close(self, *, finished: bool) -> None:
        """Let go of the file, and remove it if it is not needed any more or holds nothing."""
        if finished or self._empty:
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


def _open_own(path: Path, work: str) -> IO[bytes]:
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
                f"Another {work} is writing {path}: {holder_of(path) or 'a process'}.",
                remedy="Wait for it, or stop it.",
            ) from err
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # a finished pass removed it between opening and locking
