"""Small pictures of a data set, for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from riformer_deploy.common.errors import ImageError, OptionError
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.datasets import array_split, open_dataset
from riformer_deploy.data.decoding import Rgb, decode_image
from riformer_deploy.reporting.evidence import Evidence

_SIDE_PX = 96
_MOST = 24

PictureSource = Callable[[str], Rgb | None]
"""Gives the picture of a name, or None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture.

    Attributes:
        caption: What it is.
        jpeg: The file, in base64.
    """

    caption: str
    jpeg: str


def pictures_of(data: Path, evidence: Evidence) -> PictureSource:
    """The pictures of a data set by the names that a bundle's answers give them.

    Args:
        data: A folder or an ``.npz`` file. Names that lead out of a folder give nothing: a bundle must not
            choose what of this machine is shown.
        evidence: Of a bundle, with answers.

    Raises:
        DatasetError: ``data`` is an ``.npz`` file without labelled pictures.
        OptionError: It is another file than the one that accuracy was measured on.
    """
    return _of_folder(data) if data.is_dir() else _of_arrays(data, evidence)


def _of_folder(data: Path) -> PictureSource:
    root = data.resolve()

    def picture(name: str) -> Rgb | None:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return None
        try:
            return decode_image(path)
        except ImageError:
            return None

    return picture


def _of_arrays(data: Path, evidence: Evidence) -> PictureSource:
    model = evidence.manifest.model if evidence.manifest else None
    names = [answer.picture for answer in evidence.answers]
    split = array_split(names[0]) if names else None
    dataset = None
    if split is not None and model is not None and evidence.accuracy is not None:
        classes = ClassList(count=model.architecture.num_classes, names=model.class_names)
        dataset = open_dataset(data, classes, split=split)
    if dataset is None or evidence.accuracy is None or dataset.identity != evidence.accuracy.dataset.identity:
        raise OptionError(
            f"{data} is not what accuracy was measured on, so its pictures are not those of the mistakes.",
            remedy="Name the folder or .npz file that was given to `riformer-deploy verify accuracy`.",
        )
    places = {sample.name.rpartition(":")[2]: place for place, sample in enumerate(dataset.samples)}

    def picture(name: str) -> Rgb | None:
        place = places.get(name.rpartition(":")[2])
        pixels = None if place is None else dataset.picture(place)
        return None if pixels is None or isinstance(pixels, Image.Image) else pixels

    return picture


def thumbnails(picture: PictureSource, captions: Mapping[str, str]) -> tuple[Thumbnail, ...]:
    """Small pictures, at most 24.

    Args:
        picture: Where they come from.
        captions: By the picture's name, in order; a name that gives no picture is left out.
    """
    found: list[Thumbnail] = []
    for name, caption in captions.items():
        if len(found) == _MOST:
            break
        pixels = picture(name)
        if pixels is None:
            continue
        image = Image.fromarray(pixels)
        image.thumbnail((_SIDE_PX, _SIDE_PX))
        stream = io.BytesIO()
        image.save(stream, format="JPEG", quality=80)
        found.append(Thumbnail(caption=caption, jpeg=base64.b64encode(stream.getvalue()).decode("ascii")))
    return tuple(found)
