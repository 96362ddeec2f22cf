"""What ``torch.save`` wrote, in the zip format and in the one from before PyTorch 1.6."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from riformer_deploy.checkpoints.file_kinds import check_members
from riformer_deploy.checkpoints.pickle_values import PickleDamageError, PickleReader
from riformer_deploy.checkpoints.placeholders import Placeholder
from riformer_deploy.checkpoints.stored_tensors import Storage, call_by_name, storage_dtype
from riformer_deploy.checkpoints.stored_zip import entries_of, members_of

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch.serialization
_COUNT_BYTES = 8  # before the values of a storage


def read_zip(path: Path, data: memoryview, names: set[str]) -> Any:
    """Interpret a zip archive.

    Args:
        path: Named in errors.
        data: The archive.
        names: Receives the full names of all that its pickle names; none of it is imported.

    Returns:
        Plain data, tensors that are views of ``data``, and placeholders.

    Raises:
        CheckpointUnreadableError: As :func:`~riformer_deploy.checkpoints.stored_zip.members_of` and
            :func:`~riformer_deploy.checkpoints.file_kinds.check_members`.
        PickleDamageError: Its pickle, or a tensor in it, is not as ``torch.save`` writes it.
    """
    entries = entries_of(data)
    prefix = check_members(path, [entry.filename for entry in entries])
    members = members_of(path, data, entries)
    if (order := members.get(f"{prefix}byteorder")) is not None and bytes(order) != b"little":
        raise PickleDamageError("its numbers are not stored little-endian")
    storages: dict[Any, Storage] = {}

    def persistent(identity: Any) -> Any:
        match identity:
            case ("storage", kind, str() as key, _, int() as count):
                pass
            case _:
                raise PickleDamageError("its pickle refers to something else than a storage")
        if (dtype := storage_dtype(kind)) is None:
            return _unread(kind)
        content = members.get(f"{prefix}data/{key}")
        if content is None:
            raise PickleDamageError(f"it holds no storage {key[:80]}")
        if count * dtype.itemsize != len(content):
            raise PickleDamageError(
                f"its storage {key[:80]} should have {count:,} {dtype} values; it has {len(content):,} bytes"
            )
        stored = storages.setdefault(key, Storage(dtype=dtype, data=content))
        return stored if stored.dtype is dtype else Storage(dtype=dtype, data=content)

    pickle = members[f"{prefix}data.pkl"]
    return PickleReader(data=pickle, call=call_by_name, persistent=persistent, names=names).read()


def read_legacy(data: memoryview, names: set[str]) -> Any:
    """Interpret a file of the format from before PyTorch 1.6, which has no checksums.

    Args:
        data: The file: five pickles (a magic number, the protocol, system information, the object and the
            keys of its storages), then the storages.
        names: Receives the full names of all that its pickles name; none of it is imported.

    Returns:
        Plain data, tensors that are views of ``data``, and placeholders.

    Raises:
        PickleDamageError: It is not as ``torch.save`` writes it.
    """
    described: dict[Any, tuple[torch.dtype, int]] = {}

    def describe(identity: Any) -> Any:
        match identity:
            case ("storage", kind, str() as key, _, int() as count, _):
                if (dtype := storage_dtype(kind)) is not None and described.setdefault(
                    key, (dtype, count)
                ) != (
                    dtype,
                    count,
                ):
                    raise PickleDamageError(f"its pickle describes the storage {key[:80]} in two ways")
            case ("module", *_):
                pass
            case _:
                raise PickleDamageError("its pickle refers to something else than a storage or a class")
        return Placeholder("torch.UntypedStorage")

    # The storages lie behind the pickle that refers to them: it is interpreted once to find them.
    first = PickleReader(data=data, call=lambda name, _: Placeholder(name), persistent=describe, names=names)
    if first.read() != _MAGIC or first.read() != _PROTOCOL:
        raise PickleDamageError("it does not begin with PyTorch's magic number")
    if not isinstance(system := first.read(), dict) or system.get("little_endian", True) is not True:
        raise PickleDamageError("its numbers are not stored little-endian")
    place = first.position
    first.read()
    keys = first.read()
    storages = _storages(data, first.position, keys, described)

    def persistent(identity: Any) -> Any:
        if identity[0] == "module":
            return identity[1]
        _, kind, key, _, _, view = identity
        if storage_dtype(kind) is None:
            return _unread(kind)
        if key not in storages:
            raise PickleDamageError(f"it holds no storage {key[:80]}")
        return storages[key] if view is None else _part(storages[key], view)

    return PickleReader(data=data, call=call_by_name, persistent=persistent, position=place).read()


def _storages(
    data: memoryview, begin: int, keys: Any, described: Mapping[Any, tuple[torch.dtype, int]]
) -> dict[Any, Storage]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleDamageError("it does not list its storages")
    found: dict[Any, Storage] = {}
    for key in keys:
        if key in found or key not in described:
            raise PickleDamageError(f"it lists the storage {key[:80]}, which it does not use or lists twice")
        dtype, count = described[key]
        stored = int.from_bytes(data[begin : begin + _COUNT_BYTES], "little")
        begin += _COUNT_BYTES
        size_bytes = count * dtype.itemsize
        if count < 0 or stored != count or begin + size_bytes > len(data):
            raise PickleDamageError(
                f"its storage {key[:80]} should have {count:,} {dtype} values; {stored:,} are said to follow, "
                f"in {max(len(data) - begin, 0):,} bytes"
            )
        found[key] = Storage(dtype=dtype, data=data[begin : begin + size_bytes])
        begin += size_bytes
    return found


def _part(storage: Storage, view: Any) -> Storage:
    match view:
        case (_, int() as offset, int() as count) if 0 <= offset <= offset + count <= storage.count:
            size = storage.dtype.itemsize
            return Storage(dtype=storage.dtype, data=storage.data[offset * size : (offset + count) * size])
        case _:
            raise PickleDamageError("its pickle refers to a part of a storage that it does not hold")


def _unread(kind: Any) -> Placeholder:
    return kind if isinstance(kind, Placeholder) else Placeholder("torch.UntypedStorage")
