"""Names a file that is no checkpoint for what it is, and says what to do instead."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.errors import CheckpointUnreadableError

FETCH_AGAIN = "Get the file again from where it came, and compare its size or sha256."
HEAD_BYTES = 1 << 20
"""How much of a file is looked at to tell what it is."""
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


def check_kind(path: Path, data: bytes | bytearray) -> None:
    """Refuse, by what it is, a file that PyTorch did not save.

    Args:
        path: Named in errors; its ending tells, too.
        data: The file's content, or its first megabyte.

    Raises:
        CheckpointUnreadableError: It is empty, a web page, an archive, a graph, an engine, a text, ...
    """
    if not data:
        raise CheckpointUnreadableError(f"{path} is empty.", remedy=FETCH_AGAIN)
    if not data.startswith((b"PK", b"\x80")):
        kind = _kind_of(path, bytes(data[:HEAD_BYTES]))
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
        inside = _inside(_names_in_tar(_unpacked(name, head)))
        return _Kind(
            what=f"an archive ({name}){inside}",
            remedy=f"{_UNPACK}, for instance: {command} {path.name}",
        )
    names = _names_in_tar(head)
    return _tar(path, names) if names else _by_name_or_text(path, head)


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


def _tar(path: Path, names: list[str]) -> _Kind:
    if {"sys_info", "storages", "tensors"} & set(names):
        return _Kind(
            what="in PyTorch's tar format from before version 0.1.10",
            remedy="Load it with such a version, and save its state_dict() with a newer one.",
        )
    return _Kind(what=f"a tar archive{_inside(sorted(names))}", remedy=f"{_UNPACK}: tar -xf {path.name}")


def _names_in_tar(head: bytes) -> list[str]:
    """Names of the members that begin in a tar archive's head; none where it is no tar archive."""
    names = []
    try:
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as archive:
            for member in archive:
                names.append(member.name)  # noqa: PERF401  # those before the head ends are kept
    except Exception:  # noqa: BLE001  # the names only make the message better
        return names
    return names


def _unpacked(kind: str, head: bytes) -> bytes:
    """What the beginning of a compressed file unpacks to, at most :data:`HEAD_BYTES`."""
    try:
        match kind:
            case "gzip":
                return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
            case "bzip2":
                return bz2.BZ2Decompressor().decompress(head, HEAD_BYTES)
            case "xz":
                return lzma.LZMADecompressor(memlimit=1 << 28).decompress(head, HEAD_BYTES)
    except Exception:  # noqa: BLE001  # as above
        return b""
    return b""


def _inside(names: list[str]) -> str:
    weights = [name for name in names if name.lower().endswith(_WEIGHTS)]
    return f" around {', '.join(weights[:3])}" if weights else ""


def _is_onnx(path: Path, head: bytes) -> bool:
    # a ModelProto begins with its IR version, then the producer's name, the opsets or the graph
    return path.suffix.lower() == ".onnx" or (
        len(head) > 2 and head[0] == 8 and 3 <= head[1] <= 64 and head[2:3] in {b"\x12", b"\x3a", b"\x42"}
    )


def _is_text(head: bytes) -> bool:
    head = head[:512]
    try:
        text = head[:-4].decode("utf-8-sig") if len(head) == 512 else head.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def check_members(path: Path, members: Collection[str]) -> str:
    """Refuse a zip archive that is no checkpoint.

    Args:
        path: Named in errors.
        members: Names of what it holds.

    Returns:
        What is before ``data.pkl`` in its name, and before the names of all that belongs to it.

    Raises:
        CheckpointUnreadableError: It is TorchScript, an exported program, or holds no checkpoint, or two.
    """
    names = [name.rpartition("/")[2] for name in members]
    if "constants.pkl" in names:
        raise CheckpointUnreadableError(
            f"{path} is a TorchScript archive, which holds code.",
            remedy="Give the training checkpoint that it was made from.",
        )
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise CheckpointUnreadableError(
            f"{path} is an exported program of torch.export, not a PyTorch checkpoint.", remedy=_MADE_FROM_ONE
        )
    found = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if not found:
        full = list(members)
        raise CheckpointUnreadableError(
            f"{path} is a zip archive without a data.pkl{_inside(full)}; not a checkpoint.",
            remedy=f"{_UNPACK}: unzip {path.name}" if _inside(full) else FETCH_AGAIN,
        )
    if len(found) > 1:
        raise CheckpointUnreadableError(
            f"{path} holds {len(found)} files data.pkl: {found[0]}, {found[1]}.", remedy=FETCH_AGAIN
        )
    return found[0].removesuffix("data.pkl")
