"""Pictures in files and folders: one walker for predict, features, accuracy and calibration."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.data.decoding import EXTENSIONS, Picture, decode_picture

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_THUMBNAILS = "@eaDir"  # which network disks of one maker put into every folder


@dataclass(frozen=True, kw_only=True)
class FolderContent:
    """What a folder and its subfolders hold.

    Attributes:
        pictures: Files that are pictures by their names, sorted by path.
        others: Files that are none, links that lead nowhere included.
        hidden: Names that begin with a dot, and folders of thumbnails; they are not looked into.
        repeated: Links to folders that are walked through already.
    """

    pictures: tuple[Path, ...]
    others: tuple[Path, ...]
    hidden: tuple[Path, ...]
    repeated: tuple[Path, ...]

    def notes(self, root: Path) -> tuple[str, ...]:
        """A sentence for each kind of thing that was left out.

        Args:
            root: What names are relative to.
        """
        kinds = (
            (self.others, "no pictures by their names"),
            (self.hidden, "hidden, or thumbnails"),
            (self.repeated, "links to folders that are read already"),
        )
        return tuple(
            f"left out, {what}: {len(paths)} ({_few(paths, root)})" for paths, what in kinds if paths
        )


def merged(parts: Sequence[FolderContent]) -> FolderContent:
    """The content of several folders as one."""
    return FolderContent(
        pictures=tuple(path for part in parts for path in part.pictures),
        others=tuple(path for part in parts for path in part.others),
        hidden=tuple(path for part in parts for path in part.hidden),
        repeated=tuple(path for part in parts for path in part.repeated),
    )


def _few(paths: Sequence[Path], root: Path) -> str:
    names = [str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in paths[:5]]
    return ", ".join(names) + (", ..." if len(paths) > 5 else "")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is left out wherever pictures are looked for."""
    return name.startswith(".") or name == _THUMBNAILS


def walk_pictures(folder: Path) -> FolderContent:
    """Everything in a folder and its subfolders; links to folders are followed, each folder is read once.

    Args:
        folder: Where to begin; it may be a link itself.

    Raises:
        OSError: The folder itself cannot be read.
    """
    found: dict[str, list[Path]] = {"pictures": [], "others": [], "hidden": [], "repeated": []}
    with os.scandir(folder):
        pass  # what cannot be read at all is an error; a subfolder that cannot be is left out
    waiting, links, seen = [folder], list[Path](), set[tuple[int, int]]()
    while waiting or links:
        # folders before links, so that the name under which a folder is read does not depend on the order
        current = waiting.pop() if waiting else links.pop(0)
        state = current.stat()
        if (state.st_dev, state.st_ino) in seen:
            found["repeated"].append(current)
            continue
        seen.add((state.st_dev, state.st_ino))
        for path in _entries(current, found["others"]):
            if is_hidden(path.name):
                found["hidden"].append(path)
            elif path.is_dir():
                (links if path.is_symlink() else waiting).append(path)
            elif path.suffix.lower() in EXTENSIONS and path.is_file():
                found["pictures"].append(path)
            else:
                found["others"].append(path)
        links.sort()
    return FolderContent(**{name: tuple(sorted(paths)) for name, paths in found.items()})


def _entries(folder: Path, unreadable: list[Path]) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        unreadable.append(folder)
        return []


@dataclass(frozen=True, kw_only=True)
class PictureFiles:
    """Files as :class:`~riformer_deploy.data.loader.Pictures`.

    Attributes:
        paths: In order.
        notes: What was left out of the folders.
    """

    paths: tuple[Path | str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def picture(self, index: int) -> Picture:
        """Decode one; raises ImageError where that cannot be done."""
        return decode_picture(Path(self.paths[index]))

    def identity(self) -> str:
        """sha256 over names, sizes and times of change: what a pass over them is taken up again by."""
        digest = hashlib.sha256()
        for path in self.paths:
            try:
                state = os.stat(path)  # noqa: PTH116  # ten times as fast as Path's, of millions
                seen = f"{state.st_size} {state.st_mtime_ns}"
            except OSError:
                seen = "missing"
            digest.update(os.fsencode(path) + f"\0{seen}\0".encode())
        return digest.hexdigest()


def find_pictures(arguments: Sequence[Path | str]) -> PictureFiles:
    """The files that arguments mean.

    Args:
        arguments: Files; folders, of which every picture is taken, subfolders included; patterns such
            as ``shots/*.jpg`` or ``shots/**/*.png``. A file that exists is never taken for a pattern.

    Raises:
        OptionError: An argument means no file at all, or neither a file nor a picture by its name, such as
            a bundle that is spelled wrong; each one is listed.
    """
    found: list[Path] = []
    notes, nothing = [], []
    for argument in arguments:
        path, text = Path(argument), str(argument)
        if (refusal := _refused_name(path)) is not None:
            nothing.append(f"{argument}: {refusal}")
        elif path.is_dir():
            content = walk_pictures(path)
            nothing += [] if content.pictures else [f"{argument}: a folder without pictures"]
            found += content.pictures
            notes += [f"{argument}: {note}" for note in content.notes(path)]
        elif path.exists():
            found.append(path)
        elif why := _unsupported(text):
            nothing.append(f"{argument}: {why}")
        elif glob.has_magic(text):
            matched = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
            nothing += [] if matched else [f"{argument}: matches nothing"]
            found += [match for match in matched if match.is_file()]
        elif path.suffix.lower() in EXTENSIONS:
            found.append(path)  # it is named beside the other pictures as one that is not there
        else:
            nothing.append(f"{argument}: there is no such picture, folder or bundle")
    if nothing:
        raise OptionError("There are no pictures to take.", details=nothing)
    return PictureFiles(paths=tuple(found), notes=tuple(notes))


def _refused_name(path: Path) -> str | None:
    """Why the system cannot have a file of that name, such as one that is too long; None where it can."""
    try:
        path.exists()
    except (OSError, ValueError) as err:
        return reason_of(err)
    return None


def _unsupported(argument: str) -> str | None:
    if argument == "-":
        return "pictures are not read from standard input; write it to a file and name that"
    if _URL.match(argument):
        return "pictures are not fetched; download it first (curl -LO URL) and name the file"
    return None
