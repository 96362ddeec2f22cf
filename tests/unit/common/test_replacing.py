from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from riformer_deploy.common.replacing import replacing


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


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_live_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "[a] deploy.pth"  # no pattern of names
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from riformer_deploy.common.replacing import replacing\n"
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
