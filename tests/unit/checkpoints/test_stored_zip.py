"""Members of archives, whole ones and those that say one thing of themselves in two places."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from riformer_deploy.checkpoints import stored_zip
from riformer_deploy.checkpoints.stored_zip import entries_of, members_of
from riformer_deploy.common.errors import CheckpointUnreadableError

CONTENT = {"archive/data.pkl": b"pickle", "archive/data/0": bytes(range(64)), "archive/empty": b""}


def archive(method: int = zipfile.ZIP_STORED) -> bytearray:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        for name, content in CONTENT.items():
            file.writestr(name, content * (20 if method else 1))
    return bytearray(packed.getvalue())


def read(data: bytearray) -> dict[str, memoryview]:
    view = memoryview(data)
    return members_of(Path("bad.pth"), view, entries_of(view))


def test_members_are_views_of_the_archive() -> None:
    data = archive()
    found = read(data)
    assert {name: bytes(content) for name, content in found.items()} == CONTENT
    place = data.index(CONTENT["archive/data/0"])
    data[place] = 255
    assert found["archive/data/0"][0] == 255


def _flip(data: bytearray) -> None:
    data[data.index(CONTENT["archive/data/0"]) + 5] ^= 1


def _moved(data: bytearray) -> None:
    """The list of members points between them."""
    listed = data.index(b"PK\x01\x02")
    data[listed + 42] ^= 1


def _encrypted(data: bytearray) -> None:
    listed = data.index(b"PK\x01\x02")
    data[listed + 8] |= 1


def _larger(data: bytearray) -> None:
    listed = data.index(b"PK\x01\x02")
    for at in (20, 24):
        data[listed + at : listed + at + 4] = (2**31).to_bytes(4, "little")


def _two_sizes(data: bytearray) -> None:
    listed = data.index(b"PK\x01\x02")
    data[listed + 20] += 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_flip, "the checksum of archive/data/0"),
        (_moved, "not where its list"),
        (_encrypted, "encrypted"),
        (_larger, "larger than the file"),
        (_two_sizes, "compressed"),
    ],
)
def test_an_archive_that_contradicts_itself_is_refused(change: Callable[[bytearray], None], why: str) -> None:
    data = archive()
    change(data)
    with pytest.raises(CheckpointUnreadableError, match=rf"bad\.pth .*{re.escape(why)}"):
        read(data)


def test_a_name_that_is_there_twice_is_refused() -> None:
    packed = io.BytesIO(bytes(archive()))
    with zipfile.ZipFile(packed, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("archive/data/0", b"other")
    with pytest.raises(CheckpointUnreadableError, match="holds archive/data/0 twice"):
        read(bytearray(packed.getvalue()))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(method: int) -> None:
    with pytest.raises(CheckpointUnreadableError, match="compressed"):
        read(archive(method))


def test_the_number_of_members_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_zip, "_MOST_MEMBERS", 2)
    with pytest.raises(CheckpointUnreadableError, match="3 members; at most 2"):
        read(archive())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_archive_has_no_entries(content: bytes) -> None:
    with pytest.raises(zipfile.BadZipFile):
        entries_of(memoryview(content))
