from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.image_files import PictureFiles, find_pictures, walk_pictures


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _names(root: Path, paths: tuple[Path, ...]) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def test_hidden_folders_and_thumbnails_are_left_out_and_every_kind_is_known(tmp_path: Path) -> None:
    _touch(tmp_path, "a.gif", "b.JFIF", "c/d.jpe", ".git/x.png", "@eaDir/y.png", "c/.z.png", "notes.txt")
    found = walk_pictures(tmp_path)
    assert _names(tmp_path, found.pictures) == ["a.gif", "b.JFIF", "c/d.jpe"]
    assert _names(tmp_path, found.hidden) == [".git", "@eaDir", "c/.z.png"]
    assert _names(tmp_path, found.others) == ["notes.txt"]
    assert found.notes(tmp_path) == (
        "left out, no pictures by their names: 1 (notes.txt)",
        "left out, hidden, or thumbnails: 3 (.git, @eaDir, c/.z.png)",
    )


def test_links_are_followed_once_and_never_in_a_loop(tmp_path: Path) -> None:
    _touch(tmp_path / "root", "a/1.png", "z.png")
    _touch(tmp_path / "elsewhere", "2.png")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "0-first").symlink_to(tmp_path / "root" / "a")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "same.png").symlink_to(tmp_path / "root" / "z.png")
    (tmp_path / "root" / "gone.png").symlink_to(tmp_path / "nothing")
    root = tmp_path / "root"
    found = walk_pictures(root)
    assert _names(root, found.pictures) == ["a/1.png", "out/2.png", "same.png", "z.png"]
    assert _names(root, found.repeated) == ["0-first", "a/up"]
    assert _names(root, found.others) == ["gone.png"]
    (tmp_path / "link").symlink_to(root)
    assert len(walk_pictures(tmp_path / "link").pictures) == 4


def test_what_was_left_out_of_folders_is_said(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "b.txt")
    found = find_pictures([str(tmp_path)])
    assert found.notes == (f"{tmp_path}: left out, no pictures by their names: 1 (b.txt)",)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("-", "standard input"),
        ("https://example.org/a.jpg", "not fetched"),
        ("s3://bucket/a[1].jpg", "not fetched"),
        ("some/bundel", "no such picture, folder or bundle"),
    ],
)
def test_what_names_no_file_is_refused_with_what_is_supported(argument: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_pictures([argument])
    assert said in caught.value.details[0]


def test_a_list_of_files_is_the_same_until_one_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a")
    files = PictureFiles(paths=(path, tmp_path / "gone.png"))
    first = files.identity()
    assert files.identity() == first
    assert PictureFiles(paths=(path,)).identity() != first
    path.write_bytes(b"other")
    assert files.identity() != first
