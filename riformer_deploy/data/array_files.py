"""NumPy's ``.npz`` and ``.npy`` files of plain numbers: headers are checked before a value is read.

Limits: 10,000 arrays a file, 10,000 bytes a header, 32 dimensions, numbers of at most 64 bits; all arrays
together are at most four times as large as the file, or 4 GiB where that is more. Objects, records and text
are refused, as are members compressed otherwise than by deflate.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.files import open_regular

_MOST_ARRAYS = 10_000
_MOST_DIMENSIONS = 32
_MOST_BYTES = 4 << 30
_LARGEST_RATIO = 4
_PIECE_BYTES = 1 << 20
_SUFFIX = ".npy"
_FORMATS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArrayFileError(ValueError):
    """A file of arrays that is not as NumPy writes one, or not of plain numbers."""


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """One array, by its header.

    Attributes:
        name: Its name; empty for the one of a ``.npy`` file.
        shape: Its sizes.
        dtype: The type of its numbers.
        fortran: Whether its first axis is the one that changes fastest.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"

    @property
    def size_bytes(self) -> int:
        """Of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayArchive:
    """The arrays of an open ``.npz`` file.

    Args:
        file: Seekable.

    Attributes:
        arrays: By name, in the file's order.

    Raises:
        ArrayFileError: The archive is beyond this module's limits, an array is not of plain numbers, or one
            states other values than are stored.
    """

    def __init__(self, file: IO[bytes]) -> None:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
            raise ArrayFileError("it holds one array, as numpy.save writes it")
        self._archive = zipfile.ZipFile(file)
        size_bytes = file.seek(0, os.SEEK_END)
        members = self._archive.infolist()
        if len(members) > _MOST_ARRAYS:
            raise ArrayFileError(f"it holds {len(members):,} files; at most {_MOST_ARRAYS:,} are read")
        if sum(member.file_size for member in members) > max(_MOST_BYTES, _LARGEST_RATIO * size_bytes):
            raise ArrayFileError(f"its arrays are together larger than {_MOST_BYTES:,} bytes")
        self.arrays: dict[str, ArrayHeader] = {}
        for member in members:
            if not member.filename.endswith(_SUFFIX):
                continue
            name = member.filename.removesuffix(_SUFFIX)
            if name in self.arrays:
                raise ArrayFileError(f"it holds {name} twice")
            if member.compress_type not in _METHODS or member.flag_bits & 1:
                raise ArrayFileError(f"{name} is encrypted, or compressed otherwise than by deflate")
            if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
                raise ArrayFileError(f"the sizes that it states of {name} contradict each other")
            with self._archive.open(member) as content:
                self.arrays[name] = header = _header(content, name)
                _check_size(header, member.file_size - content.tell())

    def read(self, name: str) -> NDArray[Any]:
        """A whole array, C- or Fortran-contiguous as it is stored; its checksum is compared."""
        (array,) = self.rows(name, None)
        return array

    def rows(self, name: str, step: int | None) -> Iterator[NDArray[Any]]:
        """An array ``step`` rows at a time; None gives it whole.

        Args:
            name: Of :attr:`arrays`; C-contiguous, with at least one axis, where ``step`` is given.
            step: How many rows.
        """
        with self._archive.open(name + _SUFFIX) as content:
            header = _header(content, name)
            if header != self.arrays[name]:
                raise ArrayFileError(f"{name} was changed while it was being read")
            if step is None:
                yield _values(content, header)
            else:
                for start in range(0, header.shape[0], step):
                    count = min(step, header.shape[0] - start)
                    part = ArrayHeader(
                        name=name, shape=(count, *header.shape[1:]), dtype=header.dtype, fortran=False
                    )
                    yield _values(content, part)
            if content.read(1):
                raise ArrayFileError(f"{name} goes on behind its last value")


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[ArrayArchive]:
    """The arrays of a ``.npz`` file, open within the block.

    Raises:
        ArrayFileError: As :class:`ArrayArchive`.
        OSError: It is no regular file, or cannot be read.
        Exception: What :mod:`zipfile`, :mod:`zlib` and NumPy raise for damage; callers make it the error of
            the file with :func:`~riformer_deploy.common.foreign_data.foreign_data`.
    """
    with open_regular(path) as file:
        yield ArrayArchive(file)


def parse_array(content: bytes) -> NDArray[Any]:
    """The array that the content of a ``.npy`` file holds.

    Raises:
        ArrayFileError: It is not of plain numbers, or states other values than the file holds.
        Exception: As :func:`open_arrays`.
    """
    file = io.BytesIO(content)
    header = _header(file, "")
    _check_size(header, len(content) - file.tell())
    return _values(file, header)


def _header(file: IO[bytes], name: str) -> ArrayHeader:
    """Read up to the first value."""
    version = np.lib.format.read_magic(file)
    if version not in _FORMATS:
        raise ArrayFileError(f"{name} is in NumPy's array format {version}, which is not known")
    shape, fortran, dtype = _FORMATS[version](file)  # which reads headers of at most 10,000 bytes
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ArrayFileError(f"{name or 'it'} holds {dtype}; plain numbers of at most 64 bits were expected")
    if len(shape) > _MOST_DIMENSIONS or any(type(size) is not int or size < 0 for size in shape):
        raise ArrayFileError(f"{name or 'it'} has no shape of counts")
    return ArrayHeader(name=name, shape=shape, dtype=dtype, fortran=bool(fortran))


def _check_size(header: ArrayHeader, stored_bytes: int) -> None:
    if header.size_bytes != stored_bytes:
        raise ArrayFileError(
            f"{header} should have {header.size_bytes:,} bytes of values; {stored_bytes:,} are stored"
        )


def _values(file: IO[bytes], header: ArrayHeader) -> NDArray[Any]:
    values = np.empty(math.prod(header.shape), header.dtype)
    rest = values.view(np.uint8).data
    while rest:
        piece = file.read(min(len(rest), _PIECE_BYTES))
        if not piece:
            raise ArrayFileError(f"{header} ends early")
        rest[: len(piece)] = piece
        rest = rest[len(piece) :]
    return values.reshape(header.shape, order="F" if header.fortran else "C")
