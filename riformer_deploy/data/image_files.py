"""Pictures named on the command line: files and folders."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.decoding import EXTENSIONS, Picture, decode_picture


@dataclass(frozen=True, kw_only=True)
class PictureFiles:
    """Files as :class:`~riformer_deploy.data.loader.Pictures`.

    Attributes:
        paths: In order.
    """

    paths: tuple[Path | str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name_of(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def picture(self, index: int) -> Picture:
        """Decode one; raises ImageError where that cannot be done."""
        return decode_picture(Path(self.paths[index]))


def find_pictures(arguments: Sequence[Path | str]) -> PictureFiles:
    """The files that arguments mean.

    Args:
        arguments: Files; folders, of which every picture is taken, subfolders included; patterns such
            as ``shots/*.jpg`` or ``shots/**/*.png``. A file that exists is never taken for a pattern.

    Raises:
        OptionError: An argument means no file at all; each one is listed.
    """
    found: list[Path] = []
    nothing = []
    for argument in arguments:
        path, text = Path(argument), str(argument)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            nothing += [] if inside else [f"{argument}: a folder without pictures"]
            found += inside
        elif path.exists() or not glob.has_magic(text):
            found.append(path)
        else:
            matched = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
            nothing += [] if matched else [f"{argument}: matches nothing"]
            found += [match for match in matched if match.is_file()]
    if nothing:
        raise OptionError("There are no pictures to take.", details=nothing)
    return PictureFiles(paths=tuple(found))
