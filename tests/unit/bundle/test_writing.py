"""Writers beside each other, and what killed ones left."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import check_target, commit, record_file, staging
from riformer_deploy.common.errors import BundleChangedError, BundleError
from riformer_deploy.common.files import locked
from tests.manifests import manifest_of, source_of, write_bundle


def test_what_a_killed_writer_left_is_removed_by_the_next_and_a_live_one_s_is_not(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    write_bundle(directory, {"a.bin": "1"})
    (directory / ".pending-killed").mkdir()
    (directory / ".pending-killed" / "half.onnx").write_text("half")
    with staging(directory) as live:
        assert not (directory / ".pending-killed").exists()
        (live / "b.bin").write_text("of the live one")
        write_bundle(directory, {"a.bin": "2"})
        assert (live / "b.bin").read_text() == "of the live one"


def test_of_two_exports_at_once_the_second_fails_and_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    write_bundle(directory, {"a.bin": "1"})
    base = check_target(directory, source_of(), force=False)
    with staging(directory) as staged:
        (staged / "a.bin").write_text("second")
        manifest = manifest_of(record_file(staged / "a.bin", ""))
        write_bundle(directory, {"a.bin": "1", "b.bin": "first"})
        with pytest.raises(BundleChangedError, match="nothing was written"):
            commit(directory, staged, manifest, force=False, base=base)
    assert {record.path for record in Bundle.open(directory).manifest.files} == {"a.bin", "b.bin"}


def test_two_first_exports_at_once_do_not_replace_each_other(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    base = check_target(directory, source_of(), force=False)
    assert base is None
    with staging(directory) as staged:
        (staged / "a.bin").write_text("second")
        manifest = manifest_of(record_file(staged / "a.bin", ""))
        write_bundle(directory, {"b.bin": "first"})
        with pytest.raises(BundleChangedError):
            commit(directory, staged, manifest, force=False, base=base)


def test_resume_logs_go_with_an_export_unless_a_pass_is_at_work(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    write_bundle(directory, {"a.bin": "1"})
    for name in ("live", "killed"):
        (directory / f".accuracy-{name}.jsonl").write_text("{}\n")
    with locked(directory / ".accuracy-live.jsonl"):
        write_bundle(directory, {"a.bin": "2"})
    assert sorted(path.name for path in directory.glob(".accuracy-*")) == [".accuracy-live.jsonl"]


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_while_files_are_gathered_is_the_bundles_error_and_leaves_nothing(
    tmp_path: Path, kind: int
) -> None:
    def gather() -> None:
        with staging(tmp_path / "a" / "b") as staged:
            (staged / "half").write_text("half")
            raise OSError(kind, "as the system says")

    with pytest.raises(BundleError, match="cannot be written"):
        gather()
    assert list(tmp_path.iterdir()) == []
