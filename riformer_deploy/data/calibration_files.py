"""Calibration images from ``.npz`` files and folders, read a few at a time and never whole in memory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.errors import CalibrationError, ImageError, OptionError
from riformer_deploy.common.foreign_data import foreign_data
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.data.array_files import ArrayHeader, open_arrays
from riformer_deploy.data.calibration import CalibrationSet, batch_size, random_set, remarks
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.image_files import walk_pictures
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import Images, check_supported, fit, normalize

_NAMES = ("images", "calibration_images")
_REMEDY = "Write it with numpy.savez(path, images=...)."


def _reading(path: Path) -> contextlib.AbstractContextManager[None]:
    return foreign_data(path, CalibrationError, kind="an .npz file", remedy=_REMEDY)


def _stream(path: Path, name: str, step: int) -> Iterator[NDArray[Any]]:
    """The rows of one array, ``step`` at a time."""
    with _reading(path), open_arrays(path) as archive:
        yield from archive.rows(name, step)


def _image_array(path: Path, size: tuple[int, int], *, skip_bad: bool) -> tuple[ArrayHeader, list[str]]:
    """The one array of images in the file, and what was passed over."""
    with _reading(path), open_arrays(path) as archive:
        arrays = list(archive.arrays.values())
    kinds = (np.dtype(np.uint8), np.dtype(np.float32))
    images = [array for array in arrays if len(array.shape) == 4 and array.dtype in kinds]
    chosen = [array for array in images if array.name in _NAMES] or images
    if len(chosen) != 1:
        raise CalibrationError(
            f"{path} must hold one array of images, named images.",
            details=[f"it holds {', '.join(map(str, arrays)) or 'no arrays'}"],
            remedy="Images are (N, H, W, 3) uint8 RGB, or (N, 3, H, W) float32 already normalised.",
        )
    found = chosen[0]
    expected = (*size, 3) if found.dtype == np.uint8 else (3, *size)
    if found.shape[1:] != expected or found.shape[0] == 0 or found.fortran:
        raise CalibrationError(
            f"{path}: {found}{', stored column by column,' if found.fortran else ''} is not what the model "
            f"takes: (N, {', '.join(map(str, expected))}), C-contiguous, at least one image of "
            f"{size[0]}x{size[1]} px.",
            remedy="Resize and crop the images as the model's preprocessing says.",
        )
    labels = found.name.replace("images", "labels")
    if labels == found.name or labels not in {array.name for array in arrays}:
        return found, []
    if not skip_bad:
        raise CalibrationError(
            f"{path} holds labels beside its images ({labels}); calibration uses none, and images to be "
            "measured on are not to be calibrated on.",
            remedy="Save other images without labels, or say --skip-bad if these are meant.",
        )
    return found, [f"the array {labels} of {path.name} was not used"]


def npz_set(path: Path, preprocessing: Preprocessing, *, skip_bad: bool = False) -> CalibrationSet:
    """Images in an ``.npz`` file.

    Args:
        path: Holds one array named ``images`` (or the only one of that kind): (N, H, W, 3) uint8 RGB of the
            model's input size, or (N, 3, H, W) float32, normalised already.
        preprocessing: The model's.
        skip_bad: Pass over labels.

    Raises:
        CalibrationError: The file cannot be read, its images are not of that kind, or labels are beside them.
    """
    array, notes = _image_array(path, preprocessing.crop_px, skip_bad=skip_bad)
    raw, step = array.dtype == np.uint8, batch_size(preprocessing.crop_px)
    start = hashlib.sha256(f"{dump_json(preprocessing)}{array.dtype}{array.shape}".encode())
    digest, distinct = start.copy(), set()
    for rows in _stream(path, array.name, step):
        digest.update(rows.tobytes())
        if not raw and not np.isfinite(rows).all():
            raise CalibrationError(f"{path} holds images with values that are not finite.")
        distinct |= {hashlib.sha256(row.tobytes()).digest() for row in rows}

    def batches() -> Iterator[Images]:
        again = start.copy()
        for rows in _stream(path, array.name, step):
            again.update(rows.tobytes())
            yield normalize(rows, preprocessing) if raw else rows.copy()
        if again.digest() != digest.digest():
            raise CalibrationError(f"{path} changed while it was being read.")

    return CalibrationSet(
        source=path.name,
        random=False,
        count=array.shape[0],
        content_sha256=digest.hexdigest(),
        warnings=(*notes, *remarks(array.shape[0], len(distinct))),
        batches=batches,
    )


def _fitted(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    return fit(decode_image(path), preprocessing, name=str(path))


def folder_set(path: Path, preprocessing: Preprocessing, *, skip_bad: bool = False) -> CalibrationSet:
    """The pictures of a folder and its subfolders, resized and cropped as the model's preprocessing says.

    Args:
        path: The folder; what is hidden or no picture by its name is left out, with a warning.
        preprocessing: The model's.
        skip_bad: Use the rest where files cannot be used; they are named in the warnings.

    Raises:
        CalibrationError: There is no picture, or a file cannot be used.
    """
    check_supported(preprocessing)
    good: list[tuple[Path, bytes]] = []
    bad: list[str] = []
    digest = hashlib.sha256(dump_json(preprocessing).encode())
    content_of = walk_pictures(path)
    files = content_of.pictures
    for file in files:
        try:
            content = hashlib.sha256(_fitted(file, preprocessing).tobytes()).digest()
        except ImageError as err:
            bad.append(err.message)
            continue
        digest.update(content)
        good.append((file, content))
    if not good or (bad and not skip_bad):
        raise CalibrationError(
            f"{len(bad)} of the {len(files)} files in {path} cannot be used."
            if files
            else f"{path} holds no pictures.",
            details=bad,
            remedy="Remove these files, or say --skip-bad to use the rest."
            if good
            else "Give a folder of JPEG, PNG, WebP, BMP, TIFF, PPM or GIF pictures.",
        )

    def batches() -> Iterator[Images]:
        step = batch_size(preprocessing.crop_px)
        for start in range(0, len(good), step):
            pictures = []
            for file, content in good[start : start + step]:
                try:
                    pictures.append(_fitted(file, preprocessing))
                except ImageError as err:
                    raise CalibrationError(f"A calibration image vanished: {err.message}") from err
                if hashlib.sha256(pictures[-1].tobytes()).digest() != content:
                    raise CalibrationError(f"{file} changed while it was being used.")
            yield normalize(pictures, preprocessing)

    return CalibrationSet(
        source=path.resolve().name,
        random=False,
        count=len(good),
        content_sha256=digest.hexdigest(),
        warnings=(
            *content_of.notes(path),
            *(f"skipped: {text}" for text in bad),
            *remarks(len(good), len({content for _, content in good})),
        ),
        batches=batches,
    )


def calibration_set(
    source: Path | str, preprocessing: Preprocessing, *, skip_bad: bool = False
) -> CalibrationSet:
    """What ``--calibration`` names.

    Args:
        source: An ``.npz`` file or a folder of images; the text ``random`` for random images.
        preprocessing: The model's.
        skip_bad: Use the rest where part of it cannot be used.

    Raises:
        CalibrationError: It is none of these, or not usable.
    """
    if source == "random":
        return random_set(preprocessing)
    path = Path(source)
    try:
        folder = path.is_dir()
        there = folder or path.is_file()
    except (OSError, ValueError) as err:  # a name that the system refuses
        raise CalibrationError(f"There is no calibration data at {str(source)!r}: {err}") from err
    if not there:
        raise CalibrationError(
            f"There is no calibration data at {path}.",
            remedy="Give an .npz file or a folder of images, or say random (and the result is marked so).",
        )
    return (folder_set if folder else npz_set)(path, preprocessing, skip_bad=skip_bad)


@dataclass(frozen=True, kw_only=True)
class CalibrationSource:
    """Which calibration images to use.

    Attributes:
        source: An ``.npz`` file, a folder, or the text ``random``; None where none were given.
        skip_bad: Use the rest where part of them cannot be used.
    """

    source: Path | str | None = None
    skip_bad: bool = False

    def open(self, preprocessing: Preprocessing, why: str) -> CalibrationSet:
        """The images that were named.

        Args:
            preprocessing: The model's.
            why: What needs them.

        Raises:
            OptionError: None were.
            CalibrationError: They cannot be used.
        """
        if self.source is None:
            raise OptionError(
                f"{why} needs calibration images.",
                remedy="Give --calibration FOLDER or FILE.npz with pictures like those to come (random ones, "
                "--calibration random, are for trying out: a trained model seldom holds parity with them).",
            )
        return calibration_set(self.source, preprocessing, skip_bad=self.skip_bad)
