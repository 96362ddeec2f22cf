from __future__ import annotations

import bz2
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.errors import CheckpointUnreadableError


def _tar_gz(path: Path) -> None:
    torch.save({}, path.with_suffix(".pth"))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(path.with_suffix(".pth"), "run/epoch_12.pth")


def _tar(path: Path) -> None:
    torch.save({}, path.with_suffix(".pth"))
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_suffix(".pth"), "epoch_12.pth")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run/epoch_12.pth", b"x")


def _onnx(path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def _program(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")


@pytest.mark.parametrize(
    ("make", "said", "remedy"),
    [
        (_tar_gz, r"an archive \(gzip\) around run/epoch_12.pth", "tar -xzf file"),
        (lambda path: path.write_bytes(bz2.compress(b"x")), r"an archive \(bzip2\)", "Unpack"),
        (lambda path: path.write_bytes(lzma.compress(b"x")), r"an archive \(xz\)", "Unpack"),
        (lambda path: path.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99)), r"archive \(7-Zip\)", "7z x"),
        (_tar, "a tar archive around epoch_12.pth", "tar -xf"),
        (_zip, "a zip archive .* around run/epoch_12.pth", "unzip"),
        (_onnx, "an ONNX graph", "checkpoint that training wrote"),
        (lambda path: path.write_bytes(b"ftrt" + bytes(99)), "a TensorRT engine", "checkpoint"),
        (_program, "an exported program", "checkpoint"),
        (lambda path: path.write_text("model = dict(type='X')\n"), "such as a config", "config"),
        (lambda path: path.write_text('{"model": 1}'), "such as a config", "config"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file", "PyTorch's"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(99)), "one NumPy array", "savez"),
        (lambda path: path.write_bytes(bytes(99)), "not a PyTorch checkpoint", "again"),
    ],
    ids=["tar.gz", "bz2", "xz", "7z", "tar", "zip", "onnx", "engine", "program", "config", "json", "hdf5",
         "npy", "zeros"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_named_for_what_it_is(
    tmp_path: Path, make: Callable[[Path], object], said: str, remedy: str
) -> None:
    path = tmp_path / "file"
    make(path)
    with pytest.raises(CheckpointUnreadableError, match=said) as caught:
        load_checkpoint(path)
    assert remedy in caught.value.remedy


def test_engines_and_graphs_are_known_by_name_too(tmp_path: Path) -> None:
    for name, said in (("a.engine", "an engine"), ("a.onnx", "an ONNX graph")):
        (tmp_path / name).write_bytes(b"\x01\xff" * 99)
        with pytest.raises(CheckpointUnreadableError, match=said):
            load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("bundle.json", "deploy.pth"),
        (".metadata", "dcp_to_torch"),
        ("epoch_3.pth", "epoch_3.pth"),
        ("x", "model.safetensors"),
    ],
)
def test_a_folder_says_which_of_its_files_to_give(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointUnreadableError, match="is a folder") as caught:
        load_checkpoint(tmp_path)
    assert remedy in caught.value.remedy
