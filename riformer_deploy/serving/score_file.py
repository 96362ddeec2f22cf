"""A Parquet file that is written in parts, so that a pass that was interrupted is taken up again."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import BundleConflictError, OptionError
from riformer_deploy.common.files import holder_of, locked, read_regular
from riformer_deploy.common.replacing import replacing
from riformer_deploy.common.serialization import RecordError, dump_json, load_json, to_jsonable

_RECORD = "score.json"
_MOST_RECORD_BYTES = 2**20
_ROWS_OF_PART = 4096
_SECONDS_OF_PART = 30.0
_ROWS_OF_GROUP = 2**16


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """Everything that the rows depend on; it is in the file's metadata, too, as ``riformer_deploy``.

    Attributes:
        schema: Version of this record.
        version: Of this toolkit.
        model: What was run.
        artifact_sha256: Of its file.
        model_sha256: Of the bundle's record of the model: architecture, preprocessing, class names.
        features: Whether features were written, rather than classes.
        top: Classes of each picture.
        batch: Pictures that the model was given at a time.
        pictures: How many.
        pictures_sha256: Of their names, sizes and times of change.
        libraries: Versions of those that take part.
    """

    schema: int
    version: str
    model: str
    artifact_sha256: str
    model_sha256: str
    features: bool
    top: int
    batch: int
    pictures: int
    pictures_sha256: str
    libraries: dict[str, str]


def parts_of(output: Path) -> Path:
    """The folder that holds a file's parts while it is written."""
    return output.with_name(f"{output.name}.parts")


class ScoreFile:
    """Rows of pictures in order, in a folder of parts beside the file, which appears once it is whole.

    Every part is moved into place whole. A context manager: what was added and is in no part yet is written
    when it ends, however it ends.

    Args:
        output: The file.
        record: What its rows are; parts of another record are refused.
        force: Replace the file where it exists, and parts of another record.

    Attributes:
        done: Rows that earlier passes wrote.

    Raises:
        BundleConflictError: The file exists and ``force`` was not given; its parts are of another record; or
            another process is writing them.
        OptionError: It cannot be written.
    """

    def __init__(self, output: Path, record: ScoreRecord, *, force: bool) -> None:
        if output.exists() and (not force or output.is_dir()):
            raise BundleConflictError(
                f"{output} exists already.", remedy="Use --force to replace it, or another -o."
            )
        self._output, self._folder, self._record = output, parts_of(output), record
        self._waiting: list[Any] = []
        self._written_s = time.monotonic()
        with _writing(output), contextlib.ExitStack() as opening:
            self._folder.mkdir(exist_ok=True)
            try:
                opening.enter_context(locked(self._folder, blocking=False))
            except BlockingIOError as err:
                raise BundleConflictError(
                    f"Another process is writing {self._folder}: {holder_of(self._folder) or 'a process'}.",
                    remedy="Wait for it, or stop it.",
                ) from err
            self._take_up(force=force)
            self._parts = self._whole_parts()
            self.done = sum(rows for _, rows in self._parts)
            self._next = self.done
            self._lock = opening.pop_all()

    def _take_up(self, *, force: bool) -> None:
        """See that the parts are of this record, or begin anew."""
        path = self._folder / _RECORD
        found = [item for item in self._folder.iterdir() if item.suffix == ".parquet"]
        if found:
            differences = _differences(path, self._record)
            if not differences:
                return
            if not force:
                raise BundleConflictError(
                    f"{self._folder} holds an interrupted pass of something else.",
                    details=differences,
                    remedy="Repeat that command to finish it, use another -o, or --force to begin anew.",
                )
        for item in found:
            item.unlink()
        with replacing(path) as partial:
            partial.write_text(dump_json(self._record), encoding="utf-8")

    def _whole_parts(self) -> list[tuple[Path, int]]:
        """Parts that can be read and follow one another, with their rows; others are removed."""
        parquet, arrow = require("pyarrow", "parquet"), require("pyarrow")
        found: list[tuple[Path, int]] = []
        expected = 0
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                rows = parquet.read_metadata(path).num_rows if path == self._part(expected) else 0
            except (OSError, arrow.ArrowException):
                rows = 0
            if rows and expected + rows <= self._record.pictures:
                found.append((path, rows))
                expected += rows
            else:
                path.unlink()
        return found

    def _part(self, start: int) -> Path:
        return self._folder / f"{start:012d}.parquet"

    def add(self, rows: Any) -> None:
        """Append rows, a pyarrow table; they are written with others, after half a minute at the latest.

        Raises:
            OptionError: They cannot be written.
        """
        self._waiting.append(rows)
        late = time.monotonic() - self._written_s >= _SECONDS_OF_PART
        if late or sum(map(len, self._waiting)) >= _ROWS_OF_PART:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        arrow, parquet = require("pyarrow"), require("pyarrow", "parquet")
        table, path = arrow.concat_tables(self._waiting), self._part(self._next)
        with _writing(path), replacing(path) as partial:
            parquet.write_table(table, partial)
        self._waiting = []
        self._parts.append((path, len(table)))
        self._next += len(table)
        self._written_s = time.monotonic()

    def finish(self) -> None:
        """Make the file of its parts, and remove these.

        Raises:
            OptionError: It cannot be written.
        """
        self._flush()
        if self._next != self._record.pictures:
            raise ValueError(f"{self._next} rows of {self._record.pictures}")
        parquet = require("pyarrow", "parquet")
        metadata = {"riformer_deploy": dump_json(self._record)}
        with _writing(self._output), replacing(self._output) as partial:
            schema = parquet.read_schema(self._parts[0][0]).with_metadata(metadata)
            with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
                for table in self._groups():
                    writer.write_table(table.replace_schema_metadata(metadata), row_group_size=_ROWS_OF_GROUP)
        shutil.rmtree(self._folder)

    def _groups(self) -> Iterator[Any]:
        """The rows of the parts, many at a time."""
        arrow, parquet = require("pyarrow"), require("pyarrow", "parquet")
        waiting: list[Any] = []
        for path, _ in self._parts:
            waiting.append(parquet.read_table(path, partitioning=None))
            if sum(map(len, waiting)) >= _ROWS_OF_GROUP:
                yield arrow.concat_tables(waiting)
                waiting = []
        if waiting:
            yield arrow.concat_tables(waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            if self._folder.exists():
                self._flush()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise OptionError(f"{path} cannot be written: {err}") from err


def _differences(path: Path, record: ScoreRecord) -> list[str]:
    """What sets the pass that a record was written for apart from another, a line each."""
    try:
        stored = load_json(ScoreRecord, read_regular(path, _MOST_RECORD_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError, RecordError) as err:
        return [f"{path.name} cannot be read: {err}"]
    was, now = to_jsonable(stored), to_jsonable(record)
    if not isinstance(was, dict) or not isinstance(now, dict):
        raise TypeError("a record is an object")
    return [f"{name}: {was[name]} then, {now[name]} now" for name in was if was[name] != now[name]]
