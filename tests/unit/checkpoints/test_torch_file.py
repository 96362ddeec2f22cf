"""Both formats of ``torch.save``, as PyTorch reads them, and files that describe their storages falsely."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.pickle_values import PickleDamageError
from riformer_deploy.checkpoints.placeholders import UnusableTensor
from riformer_deploy.checkpoints.torch_file import read_legacy, read_zip
from riformer_deploy.common.errors import CheckpointUnreadableError

BASE = torch.arange(24.0).reshape(4, 6)
CONTENT: dict[str, Any] = {
    "whole": BASE,
    "view": BASE[1:, ::2],  # shares its storage
    "turned": BASE.t(),
    "half": torch.ones(3, dtype=torch.float16),
    "brain": torch.full((2, 2), 1.5, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "none": torch.empty(0, 3),
    "number": torch.tensor(7),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "meta": {"epoch": 3, "names": ("a", "b")},
}


def saved(content: object, *, zipped: bool) -> memoryview:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return memoryview(bytearray(file.getvalue()))


def read(data: memoryview, names: set[str] | None = None) -> Any:
    names = set() if names is None else names
    zipped = bytes(data[:2]) == b"PK"
    return read_zip(Path("some.pth"), data, names) if zipped else read_legacy(data, names)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_read_is_what_was_saved(zipped: bool) -> None:  # noqa: FBT001
    names: set[str] = set()
    found = read(saved(CONTENT, zipped=zipped), names)
    assert found.keys() == CONTENT.keys()
    assert found["meta"] == CONTENT["meta"]
    for key, value in CONTENT.items():
        if isinstance(value, Tensor):
            assert found[key].dtype is value.dtype
            assert torch.equal(found[key], value)
    assert {"torch._utils._rebuild_tensor_v2", "torch.FloatStorage"} <= names


def test_tensors_of_one_storage_share_the_bytes_of_the_file() -> None:
    found = read(saved(CONTENT, zipped=True))
    found["whole"][1, 0] = -5.0
    assert found["view"][0, 0] == -5.0
    assert found["turned"][0, 1] == -5.0


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_without_values_of_their_own_are_not_read(zipped: bool) -> None:  # noqa: FBT001
    sparse = torch.eye(2).to_sparse()
    found = read(saved({"expanded": torch.ones(1).expand(1000), "sparse": sparse}, zipped=zipped))
    assert all(isinstance(value, UnusableTensor) for value in found.values())


def _repacked(content: object, **members: bytes) -> memoryview:
    """What was saved with members replaced, and their checksums with them."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(bytes(saved(content, zipped=True)))) as old,
        zipfile.ZipFile(packed, "w") as new,
    ):
        for name in old.namelist():
            short = name.partition("/")[2]
            given = members.get(short.replace("/", "_").replace(".", "_"), old.read(name))
            if given:
                new.writestr(name, given)
    return memoryview(packed.getvalue())


def test_a_storage_is_as_long_as_the_pickle_says() -> None:
    with pytest.raises(
        PickleDamageError, match=r"its storage 0 should have 24 torch\.float32 values; it has 92"
    ):
        read(_repacked({"a": BASE}, data_0=bytes(92)))
    with pytest.raises(PickleDamageError, match="holds no storage 0"):
        read(_repacked({"a": BASE}, data_0=b""))


def test_another_byte_order_is_refused() -> None:
    with pytest.raises(PickleDamageError, match="not stored little-endian"):
        read(_repacked({"a": BASE}, byteorder=b"big"))


def test_a_persistent_id_that_is_no_storage_is_refused() -> None:
    identity = b"\x80\x02X\x04\x00\x00\x00fileX\x01\x00\x00\x00a\x86Q."
    with pytest.raises(PickleDamageError, match="something else than a storage"):
        read(_repacked({"a": BASE}, data_pkl=identity))


def test_an_archive_without_a_pickle_is_refused() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("archive/data/0", bytes(4))
    with pytest.raises(CheckpointUnreadableError, match=r"some\.pth"):
        read(memoryview(packed.getvalue()))


_HEAD = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]


def legacy(*parts: object, rest: bytes = b"") -> memoryview:
    return memoryview(b"".join(p if isinstance(p, bytes) else pickle.dumps(p, 2) for p in parts) + rest)


STORAGE = (
    b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQ."
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (legacy(1, *_HEAD[1:], {}, []), "magic number"),
        (legacy(_HEAD[0], 1000, _HEAD[2], {}, []), "magic number"),
        (legacy(*_HEAD[:2], {"little_endian": False}, {}, []), "little-endian"),
        (legacy(*_HEAD[:2], [], {}, []), "little-endian"),
        (legacy(*_HEAD, {}, {}), "does not list its storages"),
        (legacy(*_HEAD, {}, [5]), "does not list its storages"),
        (legacy(*_HEAD, {}, ["0"], rest=bytes(16)), "does not use or lists twice"),
        (legacy(*_HEAD, STORAGE, ["0"], rest=(3).to_bytes(8, "little") + bytes(12)), "3 are said to follow"),
        (legacy(*_HEAD, STORAGE, ["0"], rest=(2).to_bytes(8, "little") + bytes(7)), "in 7 bytes"),
        (legacy(*_HEAD, STORAGE, []), "holds no storage 0"),
    ],
)
def test_an_old_file_that_contradicts_itself_is_refused(data: memoryview, why: str) -> None:
    with pytest.raises(PickleDamageError, match=why):
        read(data)
