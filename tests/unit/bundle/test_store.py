from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from riformer_deploy.bundle.store import Bundle, find_bundle
from riformer_deploy.bundle.writing import check_target, staging
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import BundleConflictError, BundleError, BundleIntegrityError
from riformer_deploy.common.serialization import dump_json
from tests.manifests import manifest_of, source_of, write_bundle


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture(name="directory")
def fixture_directory(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", {"a.json": "1", "b.json": "2"}).directory


def test_an_opened_bundle_gives_its_manifest_and_files(directory: Path) -> None:
    bundle = Bundle.open(directory)
    assert {r.path: bundle.path_of(r).read_text() for r in bundle.manifest.files} == {
        "a.json": "1",
        "b.json": "2",
    }
    assert names_in(directory) == {"a.json", "b.json", "bundle.json"}


@pytest.mark.parametrize("kind", ["absent", "empty", "file"])
def test_what_is_no_bundle_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    with pytest.raises(BundleError, match=str(path)):
        Bundle.open(path)


def test_every_problem_of_a_damaged_manifest_is_listed(directory: Path) -> None:
    path = directory / "bundle.json"
    data = json.loads(path.read_text())
    del data["created_utc"]
    data["weights"][0]["file"]["path"] = "../a.json"
    data["model"]["architecture"]["num_classes"] = "two"
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="not a valid manifest") as caught:
        Bundle.open(directory)
    assert sorted(detail.partition(":")[0] for detail in caught.value.details) == [
        "created_utc",
        "model.architecture.num_classes",
        "weights[0].file",
    ]


def test_an_older_bundle_is_refused_by_its_version_with_what_replaces_it(directory: Path) -> None:
    path = directory / "bundle.json"
    older = json.loads(path.read_text()) | {"schema_version": 1, "a field of version 1": None}
    path.write_text(json.dumps(older))
    with pytest.raises(
        BundleError, match=r"is of schema version 1; this toolkit reads version 2\."
    ) as caught:
        Bundle.open(directory)
    assert (caught.value.details, "again with --force" in caught.value.remedy) == ((), True)
    with pytest.raises(BundleConflictError, match="is of schema version 1") as refused:
        check_target(directory, source_of(), force=False)
    assert "--force" in refused.value.remedy
    check_target(directory, source_of(), force=True)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_json_is_a_bundle_error(directory: Path, content: bytes) -> None:
    (directory / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=str(directory)):
        Bundle.open(directory)


def test_a_manifest_with_an_impossible_architecture_is_a_bundle_error(directory: Path) -> None:
    path = directory / "bundle.json"
    data = json.loads(path.read_text())
    data["model"]["architecture"]["num_classes"] = 0
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match="num_classes"):
        Bundle.open(directory)


def test_an_altered_or_missing_file_is_refused_by_name_and_the_others_are_not(directory: Path) -> None:
    (directory / "a.json").write_text("1 ")
    bundle = Bundle.open(directory)
    first, second = bundle.manifest.files
    with pytest.raises(BundleIntegrityError, match=r"a\.json is not the file that the bundle recorded"):
        bundle.path_of(first)
    assert bundle.path_of(second).read_text() == "2"
    (directory / "a.json").unlink()
    with pytest.raises(BundleIntegrityError, match=r"a\.json cannot be read"):
        bundle.path_of(first)


def test_a_checked_file_does_not_vouch_for_another_sha256(directory: Path) -> None:
    bundle = Bundle.open(directory)
    record = bundle.manifest.files[0]
    bundle.path_of(record)
    with pytest.raises(BundleIntegrityError):
        bundle.path_of(dataclasses.replace(record, sha256="0" * 64))


def test_find_bundle_takes_what_it_was_told(tmp_path: Path) -> None:
    assert find_bundle(tmp_path / "any") == tmp_path / "any"


def test_find_bundle_takes_the_current_folder(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(directory / "inner", {})
    monkeypatch.chdir(directory)
    assert find_bundle(None).resolve() == directory.resolve()


def test_find_bundle_takes_the_only_one_in_the_current_folder(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory.parent / "other").mkdir()
    (directory.parent / "bundle.json.txt").write_text("{}")
    monkeypatch.chdir(directory.parent)
    assert find_bundle(None) == Path("bundle")


def test_find_bundle_names_several(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(directory.parent / "another", {})
    monkeypatch.chdir(directory.parent)
    with pytest.raises(BundleError, match="several bundles") as caught:
        find_bundle(None)
    assert caught.value.details == ("another", "bundle")


def test_find_bundle_says_that_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="neither is nor holds a bundle"):
        find_bundle(None)


def test_find_bundle_passes_over_what_a_killed_writer_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".pending-x").mkdir()
    (tmp_path / ".pending-x" / "bundle.json").write_text(dump_json(manifest_of()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="neither is nor holds a bundle"):
        find_bundle(None)


@pytest.mark.parametrize("force", [False, True])
def test_a_new_empty_or_killed_target_may_be_written(tmp_path: Path, *, force: bool) -> None:
    check_target(tmp_path / "new", source_of(), force=force)
    check_target(tmp_path, source_of(), force=force)
    (tmp_path / ".pending-x").mkdir()
    check_target(tmp_path, source_of(), force=force)


@pytest.mark.parametrize("force", [False, True])
def test_a_file_or_a_folder_of_foreign_files_is_never_a_target(tmp_path: Path, *, force: bool) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(BundleConflictError, match=r"thesis\.tex is a file"):
        check_target(tmp_path / "thesis.tex", source_of(), force=force)
    with pytest.raises(BundleConflictError, match=r"among them thesis\.tex"):
        check_target(tmp_path, source_of(), force=force)


def test_a_bundle_of_the_same_checkpoint_is_a_target(directory: Path) -> None:
    check_target(directory, source_of(), force=False)


@pytest.mark.parametrize("damaged", [False, True])
def test_another_or_a_damaged_bundle_is_a_target_only_by_force(directory: Path, *, damaged: bool) -> None:
    if damaged:
        (directory / "bundle.json").write_text("{}")
    message = "cannot be read" if damaged else "bundle of another checkpoint"
    with pytest.raises(BundleConflictError, match=message):
        check_target(directory, source_of("e" * 64), force=False)
    check_target(directory, source_of("e" * 64), force=True)


@pytest.mark.parametrize("existing", [False, True])
def test_staging_leaves_nothing_behind_after_an_exception(tmp_path: Path, *, existing: bool) -> None:
    target = tmp_path / "deep" / "bundle"
    if existing:
        write_bundle(target, {"a.json": "1"})
    before = names_in(target) if existing else None

    def write_half() -> None:
        with staging(target) as staged:
            (staged / "a.json").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert (names_in(target) if target.exists() else None) == before


def test_staging_in_a_place_that_cannot_be_written_is_a_bundle_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"), staging(tmp_path / "file" / "bundle"):
        pytest.fail("the block must not run")


def test_a_commit_replaces_keeps_adds_and_drops(directory: Path) -> None:
    (directory / "notes.txt").write_text("the user's own")
    kept = Bundle.open(directory).manifest.files[0]
    committed = write_bundle(directory, {"c.json": "3"}, kept)
    for bundle in (committed, Bundle.open(directory)):
        found = {r.path: bundle.path_of(r).read_text() for r in bundle.manifest.files}
        assert found == {"a.json": "1", "c.json": "3"}
    assert names_in(directory) == {"a.json", "c.json", "bundle.json", "notes.txt"}


def test_the_other_weights_of_the_same_checkpoint_are_another_bundle(directory: Path) -> None:
    other = source_of(weights=WeightSet.RAW)
    with pytest.raises(BundleConflictError, match="or of its other weights") as caught:
        check_target(directory, other, force=False)
    assert "only weights" in caught.value.message
    assert "raw weights" in caught.value.message
    check_target(directory, other, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_of_two_exports_of_different_checkpoints_the_second_loses_without_force(
    tmp_path: Path, *, force: bool
) -> None:
    target, late = tmp_path / "bundle", source_of("e" * 64)
    check_target(target, late, force=force)  # nothing there yet: the work begins
    write_bundle(target, {"a.json": "first", "b.json": "first"})
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    if force:
        write_bundle(target, {"a.json": "2", "b.json": "2"}, source=late, force=True)
        assert Bundle.open(target).manifest.source == late
    else:
        with pytest.raises(BundleConflictError, match="bundle of another checkpoint"):
            write_bundle(target, {"a.json": "2", "b.json": "2"}, source=late)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_the_bundle_does_not_list_is_never_replaced(directory: Path, *, force: bool) -> None:
    (directory / "c.json").write_text("the user's own")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(BundleConflictError, match="not the bundle's") as caught:
        write_bundle(directory, {"a.json": "2", "c.json": "2"}, force=force)
    assert caught.value.details == ("c.json",)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_bundle_whose_manifest_is_damaged_is_really_replaced_by_force(directory: Path) -> None:
    (directory / "bundle.json").write_text("{}")
    with pytest.raises(BundleConflictError, match="cannot be read"):
        write_bundle(directory, {"a.json": "2", "b.json": "2"})
    write_bundle(directory, {"a.json": "2", "b.json": "2"}, force=True)
    bundle = Bundle.open(directory)
    assert [bundle.path_of(record).read_text() for record in bundle.manifest.files] == ["2", "2"]


@pytest.mark.parametrize("part", ["weights", "onnx"])
def test_a_manifest_without_weights_or_a_graph_is_a_bundle_error(directory: Path, part: str) -> None:
    path = directory / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: []}))
    with pytest.raises(BundleError, match="not a valid manifest") as caught:
        Bundle.open(directory)
    assert "holds weights and at least one ONNX model" in str(caught.value)


def test_a_folder_may_be_given_as_text(directory: Path) -> None:
    assert Bundle.open(str(directory)).directory == directory
