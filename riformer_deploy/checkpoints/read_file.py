"""Reads whatever holds state dicts: PyTorch's files, safetensors, ``.npz``, folders of these."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from riformer_deploy.checkpoints.file_kinds import HEAD_BYTES, check_kind, refuse_folder
from riformer_deploy.checkpoints.safe_unpickle import read_checkpoint
from riformer_deploy.checkpoints.safetensors_file import is_safetensors, read_safetensors
from riformer_deploy.checkpoints.stored_zip import entries_of
from riformer_deploy.common.errors import CheckpointUnreadableError
from riformer_deploy.common.files import FileChangedError, open_regular, read_regular, read_unchanged
from riformer_deploy.common.foreign_data import foreign_data
from riformer_deploy.common.serialization import parse_json
from riformer_deploy.data.array_files import ArrayArchive

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
MOST_BYTES = 4 << 30
"""Of one file; a training checkpoint of the largest variant with its optimiser and its average has 1.5 GB."""
_MOST_INDEX_BYTES, _MOST_SHARDS = 16 << 20, 64
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CheckpointContent:
    """What was read.

    Attributes:
        content: What PyTorch unpickled, or tensors by name.
        sha256: Of the bytes that were parsed; of several files, over their names and sha256s.
        remarks: What the user should know of the format.
    """

    content: object
    sha256: str
    remarks: tuple[str, ...] = ()


def read_file(path: Path) -> CheckpointContent:
    """Read a checkpoint file or folder, without executing anything in it.

    Args:
        path: What ``torch.save`` wrote, a safetensors file, an ``.npz`` of a state dict, or a folder with
            ``model.safetensors``, its index and shards, or one file ``*.safetensors``.

    Raises:
        CheckpointUnreadableError: It is missing, damaged, changed meanwhile or something else.
        CheckpointUnsafeError: It names code that no training framework leaves behind.
    """
    if _SCHEME.match(str(path)) and not path.exists():
        raise CheckpointUnreadableError(
            f"{path} is a URL, not a file here.",
            remedy="export and fuse fetch https URLs; otherwise download it first (curl -LO URL).",
        )
    with _unreadable(path):
        files = _files_of(path)
    contents = [_content(file) for file in files]
    if len(files) == 1:
        return CheckpointContent(
            content=_parsed(files[0], contents[0]),
            sha256=hashlib.sha256(contents[0]).hexdigest(),
            remarks=_remarks(contents[0]),
        )
    lines = "".join(
        f"{file.name} {hashlib.sha256(content).hexdigest()}\n"
        for file, content in zip(files, contents, strict=True)
    )
    return CheckpointContent(
        content=_joined(files, contents),
        sha256=hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest(),
        remarks=_remarks(contents[1]),
    )


@contextlib.contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileChangedError as err:
        raise CheckpointUnreadableError(
            f"{path} was changed while it was being read.",
            remedy="Training may be writing it; export a checkpoint that is finished.",
        ) from err
    except OSError as err:
        raise CheckpointUnreadableError(f"{path} cannot be read: {err.strerror or err}") from err


def _content(path: Path) -> bytearray:
    """The whole of a file, unless its beginning says already that it is no checkpoint."""
    with _unreadable(path):
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
        if path.name != _INDEX and not is_safetensors(head):
            check_kind(path, head)
        return read_unchanged(path, MOST_BYTES)


def _remarks(content: bytearray) -> tuple[str, ...]:
    """What is to be said of the format."""
    if content.startswith(b"PK"):
        return ()
    old = "from before PyTorch 1.6" if content.startswith(b"\x80") else "safetensors"
    return (f"the format of the file ({old}) has no checksums: damage to its weights would not be noticed",)


def _files_of(path: Path) -> list[Path]:
    """The file itself, or those that hold a folder's weights."""
    if not path.is_dir():
        return [path]
    if (path / _WHOLE).is_file():
        return [path / _WHOLE]
    if (path / _INDEX).is_file():
        return [path / _INDEX, *_shards(path)]
    single = [item for item in path.iterdir() if item.suffix.lower() == ".safetensors" and item.is_file()]
    if len(single) == 1:
        return single
    raise refuse_folder(path)


def _weight_map(index: Path, content: bytes) -> dict[str, str]:
    with foreign_data(index, CheckpointUnreadableError, kind="an index of shards"):
        match parse_json(content.decode("utf-8")):
            case {"weight_map": dict() as found} if all(isinstance(name, str) for name in found.values()):
                return typing.cast(dict[str, str], found)
            case _:
                raise ValueError("it has no weight_map of names")


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    names = sorted(set(_weight_map(index, read_regular(index, _MOST_INDEX_BYTES)).values()))
    if len(names) > _MOST_SHARDS:
        raise CheckpointUnreadableError(
            f"{index} names {len(names):,} files; at most {_MOST_SHARDS} are read."
        )
    outside = [name for name in names if Path(name).name != name or name in {"", ".", ".."}]
    missing = [name for name in names if name not in outside and not (folder / name).is_file()]
    if outside or missing:
        raise CheckpointUnreadableError(
            f"{index} names files that are not in {folder}.",
            details=[*outside, *missing],
            remedy="Fetch every shard that the index names.",
        )
    return [folder / name for name in names]


def _joined(files: list[Path], contents: list[bytearray]) -> dict[str, Tensor]:
    """The tensors of all shards; the first file is their index."""
    tensors: dict[str, Tensor] = {}
    for file, content in zip(files[1:], contents[1:], strict=True):
        for name, value in read_safetensors(file, content).items():
            if name in tensors:
                raise CheckpointUnreadableError(f"{file} holds {name}, which another shard holds too.")
            tensors[name] = value
    if absent := sorted(_weight_map(files[0], bytes(contents[0])).keys() - tensors.keys()):
        raise CheckpointUnreadableError(
            f"{files[0]} names tensors that no shard holds.", details=absent, remedy="Fetch the shards again."
        )
    return tensors


def _parsed(path: Path, content: bytearray) -> object:
    if is_safetensors(content):
        return read_safetensors(path, content)
    return _read_npz(path, content) if _is_npz(content) else read_checkpoint(path, content)


def _is_npz(content: bytearray) -> bool:
    if not content.startswith(b"PK"):
        return False
    try:
        names = [entry.filename for entry in entries_of(memoryview(content))]
    except Exception:  # noqa: BLE001  # the reader of PyTorch's files says what is wrong with it
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path, content: bytearray) -> Mapping[str, Tensor]:
    with foreign_data(
        path,
        CheckpointUnreadableError,
        kind="an .npz file of a state dict",
        remedy="Write it with numpy.savez(path, **arrays), plain numbers only.",
    ):
        stored = ArrayArchive(io.BytesIO(content))
        arrays = {name: stored.read(name) for name in stored.arrays}
        return {
            name: torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), "W"))
            for name, array in arrays.items()
        }
