"""Pictures through Ray Data: read as bytes, worked on by models in actors, answered in order.

Each batch is the pictures that one process would put together, whatever the number of workers: what a model
says of a picture can depend, in its last bits, on how many it is given at a time. So every block of Ray's is
one batch, and a file that cannot be read keeps its place by a stand-in.
"""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import ImageError, RIFormerDeployError, RuntimeFailureError
from riformer_deploy.common.files import open_regular
from riformer_deploy.data.decoding import MAX_FILE_BYTES, Picture, decode_picture
from riformer_deploy.data.loader import Pictures
from riformer_deploy.serving.ray_session import RayOptions, free_actors, ray_session

WAVE = 2**18
"""Most pictures of one Ray dataset: Ray holds a record of each batch in the process that asks."""
_COMPRESSED = (".bz2", ".gz", ".lz4", ".snappy", ".zst", ".br")
_FAILURE = "failure"
_NAME = "\0"
"""Begins what a model's machine calls a picture, as opposed to its file."""

Columns = dict[str, Any]
"""pyarrow arrays by name, one value a picture: ``reason``, null where it could be used, and the answer."""


@dataclass(frozen=True, kw_only=True)
class EncodedPictures:
    """Content of files as :class:`~riformer_deploy.data.loader.Pictures`.

    Attributes:
        paths: Of the files.
        contents: Theirs.
    """

    paths: Sequence[str]
    contents: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, index: int) -> str:
        """The path, marked: whoever asked may call the picture otherwise."""
        return _NAME + self.paths[index]

    def picture(self, index: int) -> Picture:
        """Decode one; raises ImageError where that cannot be done."""
        return decode_picture(self.contents[index], name=self.paths[index])


class PictureWork(Protocol):
    """What is to be done with pictures, pickled and sent to where it is done."""

    def open(self) -> Callable[[EncodedPictures], Columns]:
        """Load what is needed; the function answers one batch."""


class _Actor:
    """One model on one machine; it is loaded by the first batch, so that a failure is that batch's error."""

    def __init__(self, work: PictureWork) -> None:
        self._work = work
        self._answer: Callable[[EncodedPictures], Columns] | None = None

    def __call__(self, batch: Any) -> Any:
        paths, contents = (batch[name].to_pylist() for name in ("path", "bytes"))
        try:
            if self._answer is None:
                self._answer = self._work.open()
            columns = self._answer(EncodedPictures(paths=paths, contents=contents))
        except RIFormerDeployError as err:  # of an error that a task raises Ray keeps the text alone
            columns = {_FAILURE: [pickle.dumps(err)] * len(paths)}
        return require("pyarrow").table({"path": batch["path"], **columns})


@dataclass(frozen=True, kw_only=True)
class PictureJob:
    """Pictures, and what is to be done with them.

    Attributes:
        pictures: What errors call them, and what decodes one here.
        paths: Their files.
        work: What is done.
        batch: Pictures that the model is given at a time.
        stand_in: A file that every machine can read and that is no picture.
        gpus: That each model needs.
    """

    pictures: Pictures
    paths: Sequence[Path | str]
    work: PictureWork
    batch: int
    stand_in: Path
    gpus: int = 0


def map_pictures(job: PictureJob, options: RayOptions, *, start: int = 0) -> Generator[tuple[int, Any]]:
    """What is answered of every picture from ``start`` on, batch after batch, in order.

    A file that cannot be read, or vanishes meanwhile, has a row with the reason; so has one whose name Ray
    Data cannot be given. A model whose process dies is loaded again, and its batch repeated.

    Args:
        job: The work.
        options: Where it is done.
        start: The first picture.

    Yields:
        The number of a batch's first picture, and its answers: a pyarrow table of the columns of the work.

    Raises:
        RIFormerDeployError: As raised by the work, where it was done.
        RuntimeFailureError: Ray fails.
        MissingDependencyError: Ray is not installed.
    """
    refused = dict(_refused(job, start, _is_unlikely))
    with ray_session(options) as ray:
        actors = free_actors(ray, options, gpus=job.gpus)
        position = start
        while position < len(job.paths):
            stop = min(position + max(WAVE // job.batch, 1) * job.batch, len(job.paths))
            wave = range(position, stop)
            try:
                for table in _wave(ray, job, wave, refused, actors, options.cpus):
                    answered = _named(table, job, position, refused)
                    yield position, answered
                    position += len(answered)
            except (ray.exceptions.RayError, OSError) as err:
                vanished = {n: why for n, why in _refused(job, position, _is_unreadable) if n not in refused}
                if not vanished:
                    raise RuntimeFailureError(f"Ray failed: {err}") from err
                refused |= vanished


def _context(ray: Any) -> Any:
    """How Ray Data works through a dataset; the process's own settings stay."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = None  # a block is a batch, however large its files are
    return context


def _wave(
    ray: Any, job: PictureJob, wave: range, refused: dict[int, str], actors: int, cpus: int
) -> Iterator[Any]:
    """Answers of consecutive pictures, a table a batch, in order."""
    stand_in = os.path.abspath(job.stand_in)  # noqa: PTH100  # Path.resolve would follow links
    files = [stand_in if n in refused else _absolute(job.paths[n]) for n in wave]
    blocks = -(-len(files) // job.batch)
    files += [stand_in] * (blocks * job.batch - len(files))  # Ray splits evenly: now by batches
    actors = min(actors, blocks)
    with ray.data.DataContext.current(_context(ray)):
        encoded = ray.data.read_binary_files(
            files,
            include_paths=True,
            filesystem=require("pyarrow", "fs").LocalFileSystem(),
            override_num_blocks=blocks,
            num_cpus=0,  # it waits for disks; the cores are the models'
            concurrency=min(2 * actors, blocks),
        )
        dataset = encoded.map_batches(
            _Actor,
            fn_constructor_args=(job.work,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=cpus,
            num_gpus=job.gpus or None,
        )
    expected = iter(range(0, len(files), job.batch))
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        first = next(expected, len(files))
        if table["path"].to_pylist() != files[first : first + job.batch]:
            raise RuntimeFailureError(
                f"Ray Data gave other pictures than those from {wave[0] + first} on.",
                remedy="Report it, with the version of Ray.",
            )
        if _FAILURE in table.column_names:
            raise pickle.loads(table[_FAILURE][0].as_py())  # noqa: S301  # Ray trusts its cluster as much
        yield table.slice(0, len(wave) - first)


def _named(table: Any, job: PictureJob, start: int, refused: dict[int, str]) -> Any:
    """A batch's answers with the reasons as they are told here, and without the paths."""
    reasons = table["reason"].to_pylist()
    for row, reason in enumerate(reasons):
        number = start + row
        if number in refused:
            reasons[row] = refused[number]
        elif reason is not None:
            called = {
                _absolute(job.paths[number]): str(job.paths[number]),
                _NAME + _absolute(job.paths[number]): job.pictures.name_of(number),
            }
            for there, here in called.items():
                if reason.startswith(there):
                    reasons[row] = here + reason.removeprefix(there)
    arrow = require("pyarrow")
    place = table.column_names.index("reason")
    return table.set_column(place, "reason", arrow.array(reasons, arrow.string())).drop_columns(["path"])


def _absolute(path: Path | str) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # Path.resolve would follow links


def _refused(job: PictureJob, start: int, suspect: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    """Pictures that Ray Data cannot be given, and why."""
    for number in range(start, len(job.paths)):
        path = _absolute(job.paths[number])
        if is_misread(path) or suspect(path):
            try:
                job.pictures.picture(number)
            except ImageError as err:
                yield number, err.message
            else:
                if is_misread(path):
                    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
                    yield number, f"{shown!r} is a name that Ray Data does not read; rename the file"


def is_misread(path: str) -> bool:
    """Whether Ray Data takes a name for something else: not UTF-8, changed as a URL is, or decompressed.

    Args:
        path: Absolute.
    """
    try:
        path.encode("utf-8")
        parts = urlparse(path, allow_fragments=False)  # what Ray Data makes of a path
    except ValueError:
        return True
    again = parts.path + (f";{parts.params}" if parts.params else "")
    again += f"?{parts.query}" if parts.query else ""
    return path != again or path.lower().endswith(_COMPRESSED)


def _is_unlikely(path: str) -> bool:
    """By one look at its entry, since there may be millions; reading finds what that does not show."""
    try:
        state = os.stat(path)  # noqa: PTH116  # ten times as fast as Path's
    except OSError:
        return True
    return not stat.S_ISREG(state.st_mode) or state.st_size > MAX_FILE_BYTES


def _is_unreadable(path: str) -> bool:
    if _is_unlikely(path):
        return True
    try:
        open_regular(Path(path)).close()
    except OSError:
        return True
    return False
