"""Small pictures of a data set, for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from riformer_deploy.common.errors import ImageError
from riformer_deploy.data.decoding import decode_image

_SIDE_PX = 96
_MOST = 24


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture.

    Attributes:
        caption: Its name.
        jpeg: The file, in base64.
    """

    caption: str
    jpeg: str


def thumbnails(folder: Path, names: Sequence[str]) -> tuple[Thumbnail, ...]:
    """Pictures of a folder, at most 24 of them.

    Args:
        folder: Where they are.
        names: Paths below it, as a bundle's results name them. One that leads out of the folder, or
            to no picture that can be decoded, is left out: a bundle must not choose what of this machine is
            shown.
    """
    root = folder.resolve()
    found: list[Thumbnail] = []
    for name in names:
        path = (root / name).resolve()
        if len(found) == _MOST or not path.is_relative_to(root) or not path.is_file():
            continue
        try:
            image = Image.fromarray(decode_image(path))
        except ImageError:
            continue
        image.thumbnail((_SIDE_PX, _SIDE_PX))
        stream = io.BytesIO()
        image.save(stream, format="JPEG", quality=80)
        found.append(Thumbnail(caption=name, jpeg=base64.b64encode(stream.getvalue()).decode("ascii")))
    return tuple(found)
