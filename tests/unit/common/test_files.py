from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from riformer_deploy.common.files import (
    FileTooLargeError,
    NotRegularFileError,
    holder_of,
    locked,
    open_regular,
    read_regular,
)


def test_a_regular_file_and_a_link_to_it_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"abc"


def test_what_is_no_regular_file_is_refused_by_name_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path / "pipe", "a named pipe"),
            (tmp_path / "link", "a named pipe"),
            (tmp_path / "folder", "a folder"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
        ):
            with pytest.raises(NotRegularFileError, match=f"is {kind}, not a regular file: '{path}'"):
                open_regular(path)


def test_a_file_above_the_limit_is_refused_whatever_it_says_of_its_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcd")
    assert read_regular(path, 4) == b"abcd"
    with pytest.raises(FileTooLargeError, match="more than 3 bytes"):
        read_regular(path, 3)
    os.truncate(path, 2**40)  # sparse: nothing is read of it
    with pytest.raises(FileTooLargeError, match="1,000 bytes"):
        read_regular(path, 1000)
    with pytest.raises(FileTooLargeError):  # of size 0, as the system has it
        read_regular(Path("/proc/self/maps"), 10)


def test_the_holder_of_a_lock_is_named(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with locked(tmp_path):
        assert str(holder_of(tmp_path)).startswith(f"process {os.getpid()} (")
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True, blocking=False):
        pass
    assert holder_of(tmp_path / "absent") is None
