"""Reads whatever holds state dicts: PyTorch's files, safetensors, ``.npz``, folders of these."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riformer_deploy.checkpoints.file_kinds import refuse_folder
from riformer_deploy.checkpoints.safe_unpickle import read_checkpoint
from riformer_deploy.checkpoints.safetensors_file import is_safetensors, read_safetensors
from riformer_deploy.common.errors import CheckpointUnreadableError
from riformer_deploy.common.files import sha256_of

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CheckpointContent:
    """What was read.

    Attributes:
        content: What PyTorch unpickled, or tensors by name.
        sha256: Of the file; of several, over their names and sha256s.
    """

    content: object
    sha256: str


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
    try:
        files = _files_of(path)
        before = [_signature(file) for file in files]
        content = _read(files)
        digest = _digest(files)
        if before != [_signature(file) for file in files]:
            raise CheckpointUnreadableError(
                f"{path} was changed while it was being read.",
                remedy="Training may be writing it; export a checkpoint that is finished.",
            )
    except OSError as err:
        raise CheckpointUnreadableError(f"{path} cannot be read: {err.strerror or err}") from err
    return CheckpointContent(content=content, sha256=digest)


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


def _shards(folder: Path) -> list[Path]:
    index = folder / _INDEX
    try:
        stored = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in stored.values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise CheckpointUnreadableError(f"{index} is not an index of shards: {err!r}") from err
    outside = [name for name in names if Path(name).name != name or name in {"", ".", ".."}]
    missing = [name for name in names if name not in outside and not (folder / name).is_file()]
    if outside or missing:
        raise CheckpointUnreadableError(
            f"{index} names files that are not in {folder}.",
            details=[*outside, *missing],
            remedy="Fetch every shard that the index names.",
        )
    return [folder / name for name in names]


def _read(files: list[Path]) -> object:
    if len(files) == 1:
        return _read_one(files[0])
    tensors: dict[str, Tensor] = {}
    for file in files[1:]:
        for name, value in read_safetensors(file).items():
            if name in tensors:
                raise CheckpointUnreadableError(f"{file} holds {name}, which another shard holds too.")
            tensors[name] = value
    named = set(json.loads(files[0].read_text(encoding="utf-8"))["weight_map"])
    if absent := sorted(named - set(tensors)):
        raise CheckpointUnreadableError(
            f"{files[0]} names tensors that no shard holds.", details=absent, remedy="Fetch the shards again."
        )
    return tensors


def _read_one(path: Path) -> object:
    if path.is_file() and is_safetensors(path):
        return read_safetensors(path)
    return _read_npz(path) if _is_npz(path) else read_checkpoint(path)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False  # the reader of PyTorch's files says what is wrong with it
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in arrays.items()}
    except (ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as err:
        raise CheckpointUnreadableError(
            f"{path} is not an .npz file of a state dict: {err}",
            remedy="Write it with numpy.savez(path, **arrays), plain numbers only.",
        ) from err


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written; None where it cannot be asked for."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(files: list[Path]) -> str:
    if len(files) == 1:
        return sha256_of(files[0])
    lines = "".join(f"{file.name} {sha256_of(file)}\n" for file in files)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
