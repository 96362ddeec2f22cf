from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from riformer_deploy.common.files import (
    FileTooLargeError,
    NotRegularFileError,
    holder_of,
    locked,
    open_regular,
    read_regular,
    replacing,
    sha256_of,
    utf8_path,
)


@pytest.mark.parametrize("size", [0, 3, 1_000_001])
def test_sha256_is_that_of_the_whole_content(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    path = tmp_path / "file"
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


def test_sha256_of_abc_is_the_published_value(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == expected


def test_sha256_of_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "absent")


@pytest.mark.parametrize("old", [None, "old"])
def test_replacing_shows_the_new_content_only_after_the_block(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "report.html"
    if old is not None:
        path.write_text(old)
    with replacing(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert (path.read_text() if path.exists() else None) == old
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the ne")
            raise kind

    with pytest.raises(kind):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_move_leaves_the_old_one_and_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="taken"), replacing(path) as partial:
        partial.write_text("new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_permissions_follow_the_umask_which_stays_as_it_was(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("new")
        after = os.umask(mask)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert after == mask


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "absent" / "file"):
        pytest.fail("the block must not run")


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


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_live_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "[a] deploy.pth"  # no pattern of names
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from riformer_deploy.common.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)  # noqa: S603 (this text)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    others = [tmp_path / ".other.12345678.partial", tmp_path / f".{path.name}.notes.partial"]
    for other in others:
        other.touch()
    with replacing(path) as partial:
        assert not left.exists()
        with replacing(path) as second:
            assert partial.exists()
            second.write_text("second")
        partial.write_text("first")
    assert path.read_text() == "first"
    assert set(tmp_path.iterdir()) == {path, *others}


def test_the_holder_of_a_lock_is_named(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with locked(tmp_path):
        assert str(holder_of(tmp_path)).startswith(f"process {os.getpid()} (")
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True, blocking=False):
        pass
    assert holder_of(tmp_path / "absent") is None


@pytest.mark.parametrize("name", [b"caf\xc3\xa9.onnx", b"caf\xe9.onnx"])
def test_a_library_of_utf_8_gets_a_path_that_leads_to_the_file(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"abc")
    with utf8_path(path) as given:
        assert given.encode("utf-8").endswith(b".onnx")
        assert Path(given).read_bytes() == b"abc"
    assert path.read_bytes() == b"abc"
    assert Path(given).exists() == (given == str(path))
