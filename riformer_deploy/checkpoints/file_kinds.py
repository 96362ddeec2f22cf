"""Names a file that is no checkpoint for what it is, and says what to do instead."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.errors import CheckpointUnreadableError

FETCH_AGAIN = "Get the file again from where it came, and compare its size or sha256."
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".npz", ".bin", ".tar")
_UNPACK = "Unpack it first, and give the checkpoint that is in it"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of file.

    Attributes:
        what: With its article.
        remedy: What to do instead.
    """

    what: str
    remedy: str


_ARCHIVES = {
    b"\x1f\x8b": ("gzip", "tar -xzf"),
    b"BZh": ("bzip2", "tar -xjf"),
    b"\xfd7zXZ\x00": ("xz", "tar -xJf"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "tar --zstd -xf"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x"),
    b"Rar!": ("RAR", "unrar x"),
}
_MADE_FROM_ONE = "An export is made from the checkpoint that training wrote; give that one."
_OTHERS = {
    b"version https://git-lfs": _Kind(what="a Git LFS pointer", remedy="Run: git lfs pull"),
    b"ftrt": _Kind(what="a TensorRT engine", remedy=_MADE_FROM_ONE),
    b"ptrt": _Kind(what="a TensorRT engine", remedy=_MADE_FROM_ONE),
    b"\x89HDF": _Kind(what="an HDF5 file", remedy="Keras's weights are not a RIFormer's; give PyTorch's."),
    b"\x93NUMPY": _Kind(
        what="one NumPy array", remedy="Save the whole state dict: numpy.savez(path, **arrays)."
    ),
    b"\x89PNG": _Kind(what="a PNG picture", remedy="Give the checkpoint; pictures go to predict."),
    b"\xff\xd8\xff": _Kind(what="a JPEG picture", remedy="Give the checkpoint; pictures go to predict."),
    b"GGUF": _Kind(what="a GGUF file", remedy="It holds quantised weights; give the training checkpoint."),
}
_ENGINES = (".engine", ".plan", ".trt")


def refuse_folder(path: Path) -> CheckpointUnreadableError:
    """The error for a folder without weights that can be read."""
    if (path / "bundle.json").is_file():
        remedy = "It is a bundle: give its deploy.pth, or the checkpoint that it was made from."
    elif (path / ".metadata").is_file():
        remedy = (
            "It is a distributed checkpoint: convert it with python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE."
        )
    elif inside := sorted(item.name for item in path.iterdir() if item.suffix.lower() in _WEIGHTS):
        remedy = f"Give one of its files: {', '.join(inside[:10])}"
    else:
        remedy = "Give the checkpoint file, or a folder with model.safetensors."
    return CheckpointUnreadableError(f"{path} is a folder; a checkpoint file was expected.", remedy=remedy)


def check_kind(path: Path) -> None:
    """Refuse, by what it is, a file that PyTorch did not save.

    Raises:
        CheckpointUnreadableError: It is empty, a web page, an archive, a graph, an engine, a text, ...
        OSError: It cannot be read.
    """
    if path.is_dir():
        raise refuse_folder(path)
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointUnreadableError(f"{path} is empty.", remedy=FETCH_AGAIN)
    if head.startswith(b"PK"):
        _check_zip(path)
    elif not head.startswith(b"\x80") or tarfile.is_tarfile(path):
        kind = _kind_of(path, head)
        raise CheckpointUnreadableError(
            f"{path} is {kind.what}, not a PyTorch checkpoint."
            if kind.what
            else f"{path} is not a PyTorch checkpoint.",
            remedy=kind.remedy,
        )


def _kind_of(path: Path, head: bytes) -> _Kind:
    """By the first bytes where they tell, else by the name."""
    known = next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None)
    archive = next((found for magic, found in _ARCHIVES.items() if head.startswith(magic)), None)
    if known is not None:
        return known
    if archive is not None:
        name, command = archive
        return _Kind(
            what=f"an archive ({name}){_inside_of_tar(path)}",
            remedy=f"{_UNPACK}, for instance: {command} {path.name}",
        )
    return _tar(path) if tarfile.is_tarfile(path) else _by_name_or_text(path, head)


def _by_name_or_text(path: Path, head: bytes) -> _Kind:
    kind = _Kind(what="", remedy=FETCH_AGAIN)
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        why = "The download went to an error or a sign-in page; fetch the file again."
        kind = _Kind(what="a web page", remedy=why)
    elif path.suffix.lower() in _ENGINES:
        kind = _Kind(what="an engine by its name", remedy=_MADE_FROM_ONE)
    elif _is_onnx(path, head):
        kind = _Kind(what="an ONNX graph", remedy=_MADE_FROM_ONE)
    elif _is_text(head):
        why = "Give the checkpoint; a config is read where training stored it in one."
        kind = _Kind(what="a text file, such as a config", remedy=why)
    return kind


def _tar(path: Path) -> _Kind:
    with tarfile.open(path) as archive:
        names = {item.name for item in archive.getmembers()}
    if {"sys_info", "storages", "tensors"} & names:
        return _Kind(
            what="in PyTorch's tar format from before version 0.1.10",
            remedy="Load it with such a version, and save its state_dict() with a newer one.",
        )
    return _Kind(what=f"a tar archive{_inside(sorted(names))}", remedy=f"{_UNPACK}: tar -xf {path.name}")


def _inside_of_tar(path: Path) -> str:
    """What a compressed tar file holds, where it can be looked into."""
    try:
        with tarfile.open(path) as archive:
            first = [item.name for _, item in zip(range(100), archive, strict=False)]
    except (tarfile.TarError, OSError, EOFError, ImportError):
        return ""
    return _inside(first)


def _inside(names: list[str]) -> str:
    weights = [name for name in names if name.lower().endswith(_WEIGHTS)]
    return f" around {', '.join(weights[:3])}" if weights else ""


def _is_onnx(path: Path, head: bytes) -> bool:
    # a ModelProto begins with its IR version, then the producer's name, the opsets or the graph
    return path.suffix.lower() == ".onnx" or (
        head[:1] == b"\x08" and 3 <= head[1] <= 64 and head[2:3] in {b"\x12", b"\x3a", b"\x42"}
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-4].decode("utf-8-sig") if len(head) == 512 else head.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def _check_zip(path: Path) -> None:
    """Refuse a zip file that is no checkpoint, or whose content was altered."""
    with zipfile.ZipFile(path) as archive:
        full = archive.namelist()
        altered = archive.testzip()  # PyTorch's own reader does not compare the checksums
    names = [name.rpartition("/")[2] for name in full]
    if altered is not None:
        raise CheckpointUnreadableError(
            f"{path} is damaged: the checksum of {altered} in it does not match its content.",
            remedy=FETCH_AGAIN,
        )
    if "constants.pkl" in names:
        raise CheckpointUnreadableError(
            f"{path} is a TorchScript archive, which holds code.",
            remedy="Give the training checkpoint that it was made from.",
        )
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise CheckpointUnreadableError(
            f"{path} is an exported program of torch.export, not a PyTorch checkpoint.", remedy=_MADE_FROM_ONE
        )
    if "data.pkl" not in names:
        raise CheckpointUnreadableError(
            f"{path} is a zip archive without a data.pkl{_inside(full)}; not a checkpoint.",
            remedy=f"{_UNPACK}: unzip {path.name}" if _inside(full) else FETCH_AGAIN,
        )
