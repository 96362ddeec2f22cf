from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.safetensors_file import is_safetensors, read_safetensors
from riformer_deploy.common.errors import CheckpointUnreadableError


@pytest.fixture(scope="module")
def small(repository: Path) -> Path:
    """Written by the package safetensors 0.6 or newer."""
    return repository / "tests" / "data" / "small.safetensors"


def test_what_the_reference_implementation_wrote_is_read(small: Path) -> None:
    found = read_safetensors(small, bytearray(small.read_bytes()))
    assert is_safetensors(small.read_bytes())
    assert found["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found["b"].dtype, found["b"].tolist()) == (torch.bfloat16, [1.5, -2])
    assert (found["steps"].shape, found["steps"].item()) == ((), 7)
    assert found["half"].dtype is torch.float16
    assert set(found) == {"a.weight", "b", "steps", "half"}


def test_a_file_cut_anywhere_is_unreadable(small: Path, tmp_path: Path) -> None:
    data, path = small.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(9, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointUnreadableError):
            read_safetensors(path, bytearray(path.read_bytes()))
    path.write_bytes(data + b"\0")
    with pytest.raises(CheckpointUnreadableError, match="1 bytes at its end"):
        read_safetensors(path, bytearray(path.read_bytes()))


def _change(header: dict[str, Any], **entry: object) -> None:
    header["a.weight"] |= entry


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header: _change(header, dtype="F4"), "which is not known"),
        (lambda header: _change(header, shape=[2, -3]), "which is not known"),
        (lambda header: _change(header, shape=[2, 4]), "does not fit its 24 bytes"),
        (lambda header: _change(header, data_offsets=[24, 0]), "no place"),
        (lambda header: _change(header, data_offsets=["0", "24"]), "no place"),
        (lambda header: _change(header, data_offsets=[0, 10**12]), "cannot be"),
        (lambda header: header.update(c=dict(header["a.weight"])), "cannot be"),
        (lambda header: header.update(c=7), "no place"),
    ],
)
def test_a_header_that_does_not_describe_the_content_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    header = {"a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    change(header)
    text = json.dumps(header).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    with pytest.raises(CheckpointUnreadableError, match=said):
        load_checkpoint(path)
