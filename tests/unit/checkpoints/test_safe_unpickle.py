from __future__ import annotations

import argparse
import collections
import datetime as dt
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.placeholders import Placeholder
from riformer_deploy.checkpoints.read_file import read_file
from riformer_deploy.common.errors import CheckpointUnreadableError, CheckpointUnsafeError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


class HistoryBuffer:
    """Pickles under the name of mmengine's log buffer."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)
        self.statistics = getattr(np.float64, "mean", None)


def _legacy(path: Path, body: bytes) -> Path:
    """A legacy file whose object is the pickle ``body`` and whose storages are none."""
    parts = [pickle.dumps(part, 2) for part in (_MAGIC, _PROTOCOL, _SYSTEM)]
    path.write_bytes(b"".join((*parts, body, pickle.dumps([], 2))))
    return path


def _zipped(path: Path, body: bytes) -> Path:
    """A zip file whose object is the pickle ``body``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return path


CONTAINERS = pytest.mark.parametrize("container", [_legacy, _zipped], ids=["legacy", "zip"])


@CONTAINERS
def test_plain_content_is_read_in_both_containers(
    tmp_path: Path, container: Callable[[Path, bytes], Path]
) -> None:
    content = {"a": [1, 2.5, "three", None, True], "b": (b"4", {5})}
    assert read_file(container(tmp_path / "file.pth", pickle.dumps(content, 2))).content == content


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(4.0),
        np.float32(3),
        dt.datetime(2023, 4, 6, tzinfo=dt.UTC),
        dt.timedelta(1),
        Path("/some/where"),
        argparse.Namespace(lr=1e-3),
        collections.deque([1, 2], maxlen=3),
        collections.defaultdict(list, {"loss": [1]}),
        torch.__version__,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_training_scripts_leave_beside_the_weights_does_not_hinder_loading(
    tmp_path: Path, value: object, *, legacy: bool
) -> None:
    path = tmp_path / "file.pth"
    torch.save({"w": torch.ones(2), "x": value}, path, _use_new_zipfile_serialization=not legacy)
    loaded = read_file(path).content
    assert isinstance(loaded, dict)
    assert isinstance(loaded["w"], Tensor)
    assert loaded["w"].tolist() == [1, 1]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_framework_object_is_replaced_by_one_that_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, legacy: bool
) -> None:
    name = "mmengine.logging.history_buffer"
    for parent in ("mmengine", "mmengine.logging", name):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setattr(sys.modules[name], "HistoryBuffer", HistoryBuffer, raising=False)
    monkeypatch.setattr(HistoryBuffer, "__module__", name)
    path = tmp_path / "file.pth"
    torch.save({"x": HistoryBuffer()}, path, _use_new_zipfile_serialization=not legacy)
    loaded = read_file(path).content
    assert isinstance(loaded, dict)
    assert type(loaded["x"]) is Placeholder
    assert vars(loaded["x"]) == {"stands_for": f"{name}.HistoryBuffer"}


def test_a_file_whose_name_is_no_text_is_read_like_any_other(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pth")
    odd = (tmp_path / "plain.pth").rename(tmp_path / b"caf\xe9.pth".decode("utf-8", "surrogateescape"))
    loaded = read_file(odd).content
    assert isinstance(loaded, dict)
    assert loaded["w"].tolist() == [1, 1]


@CONTAINERS
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {marker}",), f"{os.name}.system"),
        (eval, ("open({marker!r}, 'w')",), "builtins.eval"),
        (exec, ("open({marker!r}, 'w')",), "builtins.exec"),
        (Path.touch, (Path("{marker}"),), "pathlib.Path"),
    ],
    ids=["os.system", "eval", "exec", "method"],
)
def test_a_pickled_call_is_refused_and_never_made(
    tmp_path: Path,
    container: Callable[[Path, bytes], Path],
    function: Callable[..., Any],
    arguments: tuple[object, ...],
    named: str,
) -> None:
    marker = tmp_path / "marker"
    filled = [
        item.format(marker=str(marker)) if isinstance(item, str) else Path(marker) for item in arguments
    ]
    path = container(tmp_path / "file.pth", pickle.dumps({"state_dict": Call(function, *filled)}, 2))
    with pytest.raises(CheckpointUnsafeError) as caught:
        read_file(path)
    assert caught.value.details == (named,)
    assert not marker.exists()


@CONTAINERS
def test_a_call_reached_through_nested_calls_is_never_made(
    tmp_path: Path, container: Callable[[Path, bytes], Path]
) -> None:
    marker = tmp_path / "marker"
    command = f"touch {marker}".encode()
    # getattr(numpy.os, "system")("touch marker"): every global in it has a harmless placeholder
    body = b"\x80\x02cbuiltins\ngetattr\ncnumpy\nos\nX\x06\x00\x00\x00system\x86R"
    body += b"X" + len(command).to_bytes(4, "little") + command + b"\x85R."
    with pytest.raises(CheckpointUnreadableError):
        read_file(container(tmp_path / "file.pth", body))
    assert not marker.exists()


@CONTAINERS
def test_a_function_inside_an_inert_package_is_never_called(
    tmp_path: Path, container: Callable[[Path, bytes], Path]
) -> None:
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w')".encode()
    body = b"\x80\x02cnumpy.testing._private.utils\nrunstring\nX" + len(code).to_bytes(4, "little") + code
    found = read_file(container(tmp_path / "file.pth", body + b"}\x86R.")).content
    assert type(found) is Placeholder
    assert not marker.exists()


@CONTAINERS
def test_every_unsafe_global_is_named_at_once(
    tmp_path: Path, container: Callable[[Path, bytes], Path]
) -> None:
    calls = [Call(os.system, "true"), Call(eval, "1"), Call(zipfile.ZipFile, "x"), np.float64(1)]
    with pytest.raises(CheckpointUnsafeError) as caught:
        read_file(container(tmp_path / "file.pth", pickle.dumps(calls, 2)))
    assert caught.value.details == ("builtins.eval", f"{os.name}.system", "zipfile.ZipFile")


@CONTAINERS
def test_names_of_python_2_are_told_by_what_they_import(
    tmp_path: Path, container: Callable[[Path, bytes], Path]
) -> None:
    with pytest.raises(CheckpointUnsafeError) as caught:
        read_file(container(tmp_path / "file.pth", b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R."))
    assert caught.value.details == ("builtins.eval",)


@CONTAINERS
@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02(X\x04\x00\x00\x00trueiposix\nsystem\n.",
    ],
    ids=["STACK_GLOBAL", "INST"],
)
def test_globals_in_opcodes_that_torch_does_not_write_are_refused(
    tmp_path: Path, container: Callable[[Path, bytes], Path], body: bytes
) -> None:
    with pytest.raises(CheckpointUnreadableError):
        read_file(container(tmp_path / "file.pth", body))


def test_an_unsafe_global_among_the_storage_keys_of_a_legacy_file_is_refused_and_not_called(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "marker"
    path = _legacy(tmp_path / "file.pth", pickle.dumps({}, 2))
    head = path.read_bytes().removesuffix(pickle.dumps([], 2))
    path.write_bytes(head + pickle.dumps([Call(os.system, f"touch {marker}")], 2))
    with pytest.raises(CheckpointUnsafeError) as caught:
        read_file(path)
    assert caught.value.details == (f"{os.name}.system",)
    assert not marker.exists()


def test_an_unsafe_optimiser_state_is_refused_although_the_weights_are_plain(
    write_checkpoint: Callable[..., Path],
) -> None:
    with pytest.raises(CheckpointUnsafeError, match=r"system"):
        read_file(write_checkpoint(optimizer={"state": {0: Call(os.system, "true")}}))
