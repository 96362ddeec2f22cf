"""The members of a zip archive as ``torch.save`` writes it: stored, named once, and with checksums."""

from __future__ import annotations

import errno
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from riformer_deploy.checkpoints.file_kinds import FETCH_AGAIN
from riformer_deploy.common.errors import CheckpointUnreadableError

_HEADER_BYTES = 30  # of a member, before its name
_MOST_MEMBERS = 100_000


class _ViewFile(io.RawIOBase):
    """Bytes in memory as a file, without the copy that :class:`io.BytesIO` makes."""

    def __init__(self, data: memoryview) -> None:
        super().__init__()
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a place before the file's beginning")  # as files do
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def entries_of(data: memoryview) -> list[zipfile.ZipInfo]:
    """What a zip archive lists.

    Args:
        data: The archive.

    Raises:
        zipfile.BadZipFile: It is none.
    """
    with zipfile.ZipFile(io.BufferedReader(_ViewFile(data))) as archive:
        return archive.infolist()


def members_of(path: Path, data: memoryview, entries: Sequence[zipfile.ZipInfo]) -> dict[str, memoryview]:
    """The content of every member by its name, as views of the archive.

    Args:
        path: Named in errors.
        data: The archive.
        entries: What it lists.

    Raises:
        CheckpointUnreadableError: A member is compressed or encrypted, has a name that another has, another
            content than its checksum says, or all together are larger than the archive; or there are more
            than 100,000.
    """
    found: dict[str, memoryview] = {}
    if len(entries) > _MOST_MEMBERS:
        raise _refused(path, f"it has {len(entries):,} members; at most {_MOST_MEMBERS:,} are read")
    if sum(entry.file_size for entry in entries) > len(data):
        raise _refused(path, "its members are compressed, or together larger than the file")
    for entry in entries:
        if entry.filename in found:
            raise _refused(path, f"it holds {entry.filename} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise _refused(path, f"{entry.filename} in it is compressed, which torch.save does not do")
        if entry.flag_bits & 1:
            raise _refused(path, f"{entry.filename} in it is encrypted")
        content = _content(data, entry)
        if content is None:
            raise _refused(path, f"{entry.filename} is not where its list of members says")
        if zlib.crc32(content) != entry.CRC:
            raise CheckpointUnreadableError(
                f"{path} is damaged: the checksum of {entry.filename} in it does not match its content.",
                remedy=FETCH_AGAIN,
            )
        found[entry.filename] = content
    return found


def _content(data: memoryview, entry: zipfile.ZipInfo) -> memoryview | None:
    head = bytes(data[entry.header_offset : entry.header_offset + _HEADER_BYTES])
    if len(head) < _HEADER_BYTES or not head.startswith(b"PK\x03\x04"):
        return None
    begin = entry.header_offset + _HEADER_BYTES
    begin += int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    content = data[begin : begin + entry.file_size]
    return content if len(content) == entry.file_size else None


def _refused(path: Path, why: str) -> CheckpointUnreadableError:
    return CheckpointUnreadableError(
        f"{path} is damaged or was not written by PyTorch: {why}.", remedy=FETCH_AGAIN
    )
