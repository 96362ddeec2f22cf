"""The Parquet file in parts, without Ray: part of ``make scale``, since pyarrow comes with Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import BundleConflictError, OptionError
from riformer_deploy.serving.score_file import ScoreFile, ScoreRecord, parts_of

RECORD = ScoreRecord(
    schema=1,
    version="1",
    model="ONNX Runtime fp32",
    artifact_sha256="a",
    model_sha256="b",
    features=False,
    top=5,
    batch=4,
    pictures=12,
    pictures_sha256="c",
    libraries={"numpy": "2"},
)


def rows(first: int, count: int) -> Any:
    """Numbered rows."""
    return require("pyarrow").table({"number": list(range(first, first + count))})


def numbers(output: Path) -> list[int]:
    """What a file holds."""
    found: list[int] = require("pyarrow", "parquet").read_table(output)["number"].to_pylist()
    return found


def interrupted(output: Path, count: int) -> None:
    """A pass that ends after so many rows."""
    with contextlib.suppress(KeyboardInterrupt), ScoreFile(output, RECORD, force=False) as file:
        file.add(rows(file.done, count))
        raise KeyboardInterrupt


def test_what_was_added_is_kept_and_the_file_is_whole_or_absent(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    interrupted(output, 4)
    interrupted(output, 4)
    assert not output.exists()
    with ScoreFile(output, RECORD, force=False) as file:
        assert file.done == 8
        file.add(rows(8, 4))
        file.finish()
    assert numbers(output) == list(range(12))
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    metadata = require("pyarrow", "parquet").read_schema(output).metadata
    assert b'"top": 5' in metadata[b"riformer_deploy"]


@pytest.mark.parametrize("damage", ["cut", "missing", "empty"])
def test_a_part_that_is_not_whole_and_those_behind_it_are_done_again(damage: str, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    for _ in range(3):
        interrupted(output, 4)
    second = parts_of(output) / "000000000004.parquet"
    match damage:
        case "cut":
            second.write_bytes(second.read_bytes()[:-20])
        case "empty":
            second.write_bytes(b"")
        case _:
            second.unlink()
    with ScoreFile(output, RECORD, force=False) as file:
        assert file.done == 4
        file.add(rows(4, 8))
        file.finish()
    assert numbers(output) == list(range(12))


def test_a_pass_of_something_else_is_refused_and_replaced_only_when_forced(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    interrupted(output, 4)
    other = dataclasses.replace(RECORD, artifact_sha256="z", top=1)
    with pytest.raises(BundleConflictError, match="interrupted pass of something else") as caught:
        ScoreFile(output, other, force=False)
    assert caught.value.details == ("artifact_sha256: a then, z now", "top: 5 then, 1 now")
    with ScoreFile(output, other, force=True) as file:
        assert file.done == 0
        file.add(rows(0, 12))
        file.finish()
    with pytest.raises(BundleConflictError, match="exists already"):
        ScoreFile(output, other, force=False)


def test_two_passes_do_not_write_one_file(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    interrupted(output, 4)
    held = os.open(parts_of(output), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(BundleConflictError, match="Another process is writing"):
        ScoreFile(output, RECORD, force=False)
    os.close(held)
    interrupted(output, 4)


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        ScoreFile(tmp_path / "gone" / "out.parquet", RECORD, force=False)
