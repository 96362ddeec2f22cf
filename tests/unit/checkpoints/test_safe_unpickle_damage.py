from __future__ import annotations

import io
import pickletools
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.read_file import read_file
from riformer_deploy.common.errors import CheckpointError, CheckpointUnreadableError

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def _pickle_ends(data: bytes) -> list[int]:
    """Where the five pickles of a legacy file end: the rest is raw tensors."""
    file = io.BytesIO(data)
    return [max(place for _, _, place in pickletools.genops(file) if place is not None) + 1 for _ in range(5)]


def _outcome(path: Path) -> str:
    """The weights' hash, or ``refused``; any error that is not of the checkpoint kind escapes."""
    try:
        return load_checkpoint(path).weights_sha256
    except CheckpointError:
        return "refused"


@FORMATS
def test_a_file_cut_anywhere_is_unreadable(write_checkpoint: Callable[..., Path], *, legacy: bool) -> None:
    path = write_checkpoint(legacy=legacy, meta={"epoch": 1})
    data = path.read_bytes()
    evenly = range(1, len(data), len(data) // 30)
    for cut in (*evenly, 3, 4, 16, 100, len(data) - 400, len(data) - 22, len(data) - 4, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointUnreadableError):
            read_file(path)


def test_a_legacy_file_cut_anywhere_in_its_pickles_is_unreadable(
    write_checkpoint: Callable[..., Path],
) -> None:
    path = write_checkpoint(legacy=True)
    data = path.read_bytes()
    ends = _pickle_ends(data)
    cuts = {end + step for end in ends for step in (-1, 0, 1)}
    cuts |= {start + (end - start) * part // 9 for start, end in pairwise([0, *ends]) for part in range(9)}
    cuts |= set(range(ends[3], ends[3] + 40))  # the keys of the storages
    for cut in sorted(cuts - {0}):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointUnreadableError):
            read_file(path)


def _rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the pickle inside a zip file and give it a right checksum again."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


@pytest.mark.untraced
def test_a_whole_zip_around_a_cut_pickle_is_unreadable(write_checkpoint: Callable[..., Path]) -> None:
    path = write_checkpoint()
    original = path.read_bytes()
    for cut in (*range(60), *range(60, 2000, 53)):
        path.write_bytes(original)
        _rewritten(path, lambda data, cut=cut: data[:cut])  # type: ignore[misc]
        with pytest.raises(CheckpointUnreadableError):
            read_file(path)


def _flips(data: bytes, count: int, *, end: int) -> Iterator[bytes]:
    chance = random.Random(0)  # noqa: S311  # places, not secrets
    for _ in range(count):
        damaged = bytearray(data)
        damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
        yield bytes(damaged)


def test_one_flipped_bit_in_a_zip_is_refused_or_does_not_touch_the_weights(
    write_checkpoint: Callable[..., Path],
) -> None:
    path = write_checkpoint(meta={"epoch": 1})
    data = path.read_bytes()
    whole = load_checkpoint(path).weights_sha256
    outcomes = []
    for damaged in _flips(data, 60, end=len(data)):
        path.write_bytes(damaged)
        outcomes.append(_outcome(path))
    assert set(outcomes) <= {"refused", whole}
    assert "refused" in outcomes


@pytest.mark.untraced
def test_one_flipped_bit_in_a_legacy_files_pickles_never_raises_anything_but_a_checkpoint_error(
    write_checkpoint: Callable[..., Path],
) -> None:
    path = write_checkpoint(legacy=True, meta={"epoch": 1})
    data = path.read_bytes()
    outcomes = []
    for damaged in _flips(data, 150, end=_pickle_ends(data)[4]):
        path.write_bytes(damaged)
        outcomes.append(_outcome(path))
    assert outcomes.count("refused") > 75


def test_damage_is_never_answered_with_the_advice_to_load_unsafely(
    write_checkpoint: Callable[..., Path],
) -> None:
    path = write_checkpoint()
    _rewritten(path, lambda data: data.replace(b"}q\x00", b"]q\x00", 1))  # a list that is given items
    with pytest.raises(CheckpointUnreadableError) as caught:
        read_file(path)
    assert "weights_only" not in str(caught.value)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def _torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Path.mkdir, "is a folder"),
        (lambda _: None, "No such file"),
        (Path.touch, "is empty"),
        (lambda path: path.write_text("\n<!DOCTYPE html><html>Sign in"), "is a web page"),
        (lambda path: path.write_text("<HTML><body>404"), "is a web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)), "not a PyTorch checkpoint"),
        (lambda path: path.write_bytes(b"\x80\x02]q\x00."), "not a PyTorch checkpoint"),
        (_torchscript, "TorchScript archive"),
        (_zip_of_text, "without a data.pkl"),
        (_tar, "not a PyTorch checkpoint"),
    ],
    ids=["folder", "missing", "empty", "web page", "HTML", "LFS", "PNG", "pickle", "script", "zip", "tar"],
)
def test_something_else_is_refused_by_what_it_is(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(CheckpointUnreadableError, match=said) as caught:
        read_file(path)
    assert str(path) in caught.value.message
