"""A ``.commit`` that was not left by an interrupted write: believed by nobody, changed by nobody."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from riformer_deploy.bundle import folder_lock
from riformer_deploy.bundle.store import Bundle, is_bundle
from riformer_deploy.bundle.writing import manifest_digest, staging
from riformer_deploy.common.errors import BundleChangedError, BundleError
from riformer_deploy.common.files import locked
from tests.manifests import write_bundle


@pytest.fixture(name="directory")
def fixture_directory(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", {"a.json": "1", "b.json": "2"}).directory


@pytest.fixture(name="interrupted")
def fixture_interrupted(tmp_path: Path, directory: Path) -> Path:
    """The bundle, and in ``.commit`` a next one: what a kill right after the one rename leaves."""
    other = write_bundle(tmp_path / "other", {"a.json": "3", "b.json": "4"}).directory
    other.rename(directory / ".commit")
    return directory


def snapshot(root: Path) -> dict[str, object]:
    return {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def linked(directory: Path) -> None:
    outside = directory.parent / "outside"
    (directory / ".commit").rename(outside)
    (directory / ".commit").symlink_to(outside)


def linked_file(directory: Path) -> None:
    outside = directory.parent / "outside"
    (directory / ".commit" / "a.json").rename(outside)
    (directory / ".commit" / "a.json").symlink_to(outside)


def linked_manifest(directory: Path) -> None:
    outside = directory.parent / "outside"
    (directory / ".commit" / "bundle.json").rename(outside)
    (directory / ".commit" / "bundle.json").symlink_to(outside)


def pipe(directory: Path) -> None:
    (directory / ".commit" / "a.json").unlink()
    os.mkfifo(directory / ".commit" / "a.json")


def unlisted(directory: Path) -> None:
    (directory / ".commit" / "c.json").write_text("")


def without_manifest(directory: Path) -> None:
    (directory / ".commit" / "bundle.json").unlink()


def invalid_manifest(directory: Path) -> None:
    (directory / ".commit" / "bundle.json").write_text("{}")


def endless_manifest(directory: Path) -> None:
    os.truncate(directory / ".commit" / "bundle.json", 2**40)


def folder(directory: Path) -> None:
    (directory / ".commit" / "a.json").unlink()
    (directory / ".commit" / "a.json").mkdir()


def plain_file(directory: Path) -> None:
    shutil.rmtree(directory / ".commit")
    (directory / ".commit").write_text("")


FOREIGN: list[Callable[[Path], None]] = [
    linked,
    linked_file,
    linked_manifest,
    pipe,
    unlisted,
    without_manifest,
    invalid_manifest,
    folder,
    plain_file,
]


@pytest.mark.parametrize("change", FOREIGN, ids=lambda change: change.__name__)
def test_a_foreign_commit_is_refused_by_readers_and_writers_and_nothing_is_moved(
    tmp_path: Path, interrupted: Path, change: Callable[[Path], None]
) -> None:
    change(interrupted)
    before = snapshot(tmp_path) if change is not pipe else {}
    with pytest.raises(BundleError, match="not left by an interrupted write") as caught:
        Bundle.open(interrupted)
    assert ".commit" in str(caught.value)
    with pytest.raises(BundleError, match="not left by an interrupted write"), staging(interrupted):
        pytest.fail("the block must not run")
    if before:
        assert snapshot(tmp_path) == before
    else:
        assert (interrupted / "a.json").read_text() == "1"


def test_an_endless_manifest_is_not_read(interrupted: Path) -> None:
    endless_manifest(interrupted)
    with pytest.raises(BundleError, match="holds more than"):
        Bundle.open(interrupted)


def test_readers_see_the_new_bundle_and_write_nothing_until_a_writer_moves_it(
    tmp_path: Path, interrupted: Path
) -> None:
    before = snapshot(tmp_path)
    bundle = Bundle.open(interrupted)
    assert {r.path: bundle.path_of(r).read_text() for r in bundle.manifest.files} == {
        "a.json": "3",
        "b.json": "4",
    }
    digest = manifest_digest(interrupted)
    assert snapshot(tmp_path) == before
    with staging(interrupted):
        pass
    assert {path.name for path in interrupted.iterdir()} == {"a.json", "b.json", "bundle.json"}
    assert manifest_digest(interrupted) == digest
    # the reader that was there before goes on
    assert [bundle.path_of(record).read_text() for record in bundle.manifest.files] == ["3", "4"]


def test_a_folder_whose_first_write_was_interrupted_is_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_bundle(tmp_path / "other", {"a.json": "3", "b.json": "4"}).directory.rename(
        tmp_path / "new/.commit"
    )
    assert is_bundle(tmp_path / "new")
    assert Bundle.open(tmp_path / "new").manifest.files


def test_a_pending_folder_that_is_a_link_is_left_alone(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_text("")
    (directory / ".pending-x").symlink_to(tmp_path / "outside")
    os.mkfifo(directory / ".accuracy-0.jsonl")
    write_bundle(directory, {"a.json": "2", "b.json": "2"})
    assert (tmp_path / "outside" / "mine").exists()


def test_a_reader_says_whom_it_waits_for_and_gives_up(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folder_lock, "READERS_WAIT_S", 0.1)
    monkeypatch.setattr(folder_lock, "_SILENT_S", 0.02)
    with locked(interrupted), pytest.raises(BundleChangedError, match=f"process {os.getpid()}"):
        Bundle.open(interrupted)
    assert f"waiting for process {os.getpid()}" in caplog.text
    assert str(interrupted) in caplog.text


def test_a_reader_waits_for_a_writer_that_comes_to_an_end(interrupted: Path) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(interrupted):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    threading.Timer(0.1, release.set).start()
    assert Bundle.open(interrupted).manifest.files
    thread.join()


def test_a_file_that_another_process_replaced_is_told_from_a_damaged_one(directory: Path) -> None:
    bundle = Bundle.open(directory)
    write_bundle(directory, {"a.json": "3", "b.json": "4"})
    with pytest.raises(BundleChangedError, match="replaced the bundle"):
        bundle.path_of(bundle.manifest.files[0])


def test_a_lock_of_somebody_else_does_not_keep_a_whole_bundle_from_being_read(directory: Path) -> None:
    with locked(directory):
        bundle = Bundle.open(directory)
        assert [bundle.path_of(record).read_text() for record in bundle.manifest.files] == ["1", "2"]
