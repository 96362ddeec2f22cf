from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common import snapshots
from riformer_deploy.common.errors import CheckpointUnreadableError
from riformer_deploy.common.hashing import sha256_of
from tests.safetensors_files import write_safetensors

Write = Callable[..., Path]
State = dict[str, Tensor]


def test_safetensors_files_and_folders_give_the_same_weights(
    tmp_path: Path, write_checkpoint: Write, tiny_state: State
) -> None:
    expected = load_checkpoint(write_checkpoint()).weights_sha256
    folder = tmp_path / "model"
    folder.mkdir()
    write_safetensors(folder / "weights.safetensors", tiny_state)
    for path in (folder, folder / "weights.safetensors"):
        found = load_checkpoint(path)
        assert (found.weights_sha256, found.sha256) == (expected, sha256_of(folder / "weights.safetensors"))


def test_the_shards_that_an_index_names_are_read_as_one(
    tmp_path: Path, write_checkpoint: Write, tiny_state: State
) -> None:
    expected = load_checkpoint(write_checkpoint()).weights_sha256
    folder = tmp_path / "model"
    folder.mkdir()
    parts = {
        "a.safetensors": dict(list(tiny_state.items())[:9]),
        "b.safetensors": dict(list(tiny_state.items())[9:]),
    }
    for name, part in parts.items():
        write_safetensors(folder / name, part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, part in parts.items() for key in part}}))
    assert load_checkpoint(folder).weights_sha256 == expected

    (folder / "b.safetensors").rename(folder / "c.safetensors")
    with pytest.raises(CheckpointUnreadableError, match="names files that are not in") as caught:
        load_checkpoint(folder)
    assert caught.value.details == ("b.safetensors",)
    index.write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    with pytest.raises(CheckpointUnreadableError) as outside:
        load_checkpoint(folder)
    assert outside.value.details == ("../secret.safetensors",)
    index.write_text("[]")
    with pytest.raises(CheckpointUnreadableError, match="not an index"):
        load_checkpoint(folder)


def test_tensors_that_no_shard_holds_are_named(tmp_path: Path, tiny_state: State) -> None:
    write_safetensors(tmp_path / "a.safetensors", tiny_state)
    named = dict.fromkeys([*tiny_state, "lost"], "a.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    with pytest.raises(CheckpointUnreadableError) as caught:
        load_checkpoint(tmp_path)
    assert caught.value.details == ("lost",)


def test_an_npz_of_a_state_dict_is_read_and_one_with_objects_refused(
    tmp_path: Path, write_checkpoint: Write, tiny_state: State
) -> None:
    arrays = {key: value.numpy() for key, value in tiny_state.items()}
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub
    assert load_checkpoint(path).weights_sha256 == load_checkpoint(write_checkpoint()).weights_sha256
    np.savez(path, odd=np.array([{}, None]))
    with pytest.raises(CheckpointUnreadableError, match="file of a state dict"):
        load_checkpoint(path)


def test_a_url_is_told_from_a_missing_file() -> None:
    with pytest.raises(CheckpointUnreadableError, match="is a URL"):
        load_checkpoint("https://example.org/model.pth")


class _Overtaken(io.FileIO):
    """A file that is written in place, with its old size and time, once it was read to its end."""

    def readinto(self, buffer: Any) -> int | None:
        got = super().readinto(buffer)
        if not got:
            path, before = Path(str(self.name)), os.fstat(self.fileno())
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return got


def test_a_file_that_changes_while_it_is_read_is_unreadable_though_its_time_and_size_stay(
    write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "open_regular", _Overtaken)
    with pytest.raises(CheckpointUnreadableError, match="changed while it was being read"):
        load_checkpoint(write_checkpoint())
