"""Files that are written, replaced or cut while they are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from riformer_deploy.common import snapshots
from riformer_deploy.common.files import FileTooLargeError, NotRegularFileError, open_regular
from riformer_deploy.common.snapshots import FileChangedError, read_unchanged

CONTENT = bytes(range(256)) * 10_000  # more than one piece


def test_the_whole_content_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "file").write_bytes(CONTENT)
    assert read_unchanged(path, len(CONTENT)) == CONTENT
    path.write_bytes(b"")
    assert read_unchanged(path, 0) == b""


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (path := tmp_path / "file").write_bytes(b"1234")
    with pytest.raises(FileTooLargeError, match="more than 3 bytes"):
        read_unchanged(path, 3)
    os.truncate(path, 1 << 40)  # without a block on the disk
    with pytest.raises(FileTooLargeError):
        read_unchanged(path, 1 << 30)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotRegularFileError):
        read_unchanged(tmp_path / "pipe", 10)


def _rewrite(path: Path) -> None:
    """One byte at the end; size and time of change are as before."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _replace(path: Path) -> None:
    """The same content in another file of that name."""
    other = path.with_name("other")
    other.write_bytes(CONTENT)
    other.replace(path)


@pytest.mark.parametrize("change", [_rewrite, _grow, lambda path: os.truncate(path, 5), _replace, os.utime])
def test_a_change_between_two_reads_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    (path := tmp_path / "file").write_bytes(CONTENT)

    class Changing:
        """The real file; it is changed once it was read for the first time."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def seek(self, place: int) -> int:
            change(path)
            return int(self._file.seek(place))

    monkeypatch.setattr(snapshots, "open_regular", lambda path: Changing(open_regular(path)))
    with pytest.raises(FileChangedError, match="was changed while it was being read"):
        read_unchanged(path, 1 << 30)
