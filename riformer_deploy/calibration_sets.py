"""Images to calibrate with, read a few at a time."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from riformer_deploy.errors import CalibrationError
from riformer_deploy.images import normalised, synthetic_pixels
from riformer_deploy.records import dump_json
from riformer_deploy.variants import Preprocessing

BATCH = 16
FEWEST = 64
"""With fewer images a range is a matter of luck."""
RANDOM_IMAGES = 64
_NAMES = ("images", "calibration_images")


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """Images as the network takes them.

    Attributes:
        source: What the user named.
        random: Whether the images are random rather than real.
        count: Number of images.
        content_sha256: Over the images' content, their size and the preprocessing.
        warnings: What the user should know of them.
        batches: Gives them from the start: (at most 16, 3, H, W) float32, normalised.
    """

    source: str
    random: bool
    count: int
    content_sha256: str
    warnings: tuple[str, ...]
    batches: Callable[[], Iterator[Tensor]]

    def first(self, count: int) -> NDArray[np.float32]:
        """The first ``count`` images, fewer if there are not as many."""
        taken: list[NDArray[np.float32]] = []
        for batch in self.batches():
            taken.append(batch.numpy())
            if sum(map(len, taken)) >= count:
                break
        return np.concatenate(taken)[:count]


@contextlib.contextmanager
def _opened(path: Path, member: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """One array of an ``.npz`` file, its header read: the file at the first value, the shape and the type."""
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        read = formats.get(np.lib.format.read_magic(file))
        if read is None:
            raise CalibrationError(f"{path}: {member} is in a format of NumPy that is not known.")
        shape, fortran, dtype = read(file)
        if fortran and len(shape) > 1:
            raise CalibrationError(f"{path}: {member} is stored column by column; save a C-contiguous array.")
        yield file, shape, dtype


def _stream(path: Path, member: str) -> Iterator[NDArray[Any]]:
    """The rows of one array of an ``.npz`` file, ``BATCH`` at a time; the array is never whole in memory."""
    with _opened(path, member) as (file, shape, dtype):
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        for start in range(0, shape[0], BATCH):
            rows = min(BATCH, shape[0] - start)
            data = file.read(rows * row_bytes)
            if len(data) != rows * row_bytes:
                raise CalibrationError(f"{path} is truncated: {member} ends early.")
            yield np.frombuffer(data, dtype).reshape(rows, *shape[1:])


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array in the file, by name."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
        for member in members:
            with _opened(path, member) as (_, shape, dtype):
                found[member.removesuffix(".npy")] = (shape, dtype)
    except (OSError, zipfile.BadZipFile, ValueError) as err:
        raise CalibrationError(
            f"{path} cannot be read as an .npz file: {err}",
            remedy="Write it with numpy.savez(path, images=...).",
        ) from err
    return found


def _image_array(path: Path, size: tuple[int, int]) -> tuple[str, int, bool]:
    """The one array of images in the file: its name, the count, and whether it is uint8."""
    headers = _headers(path)
    kinds = (np.dtype(np.uint8), np.dtype(np.float32))
    images = [name for name, (shape, dtype) in headers.items() if len(shape) == 4 and dtype in kinds]
    chosen = [name for name in _NAMES if name in images] or images
    if len(chosen) != 1:
        listed = [f"{name} {shape} {dtype}" for name, (shape, dtype) in headers.items()]
        raise CalibrationError(
            f"{path} must hold one array of images, named images.",
            details=[f"it holds {', '.join(listed) or 'no arrays'}"],
            remedy="Images are (N, H, W, 3) uint8 RGB, or (N, 3, H, W) float32 already normalised.",
        )
    shape, dtype = headers[chosen[0]]
    raw = dtype == np.dtype(np.uint8)
    expected = (*size, 3) if raw else (3, *size)
    if shape[1:] != expected or shape[0] == 0:
        raise CalibrationError(
            f"{path}: {chosen[0]} is {shape} {dtype}; (N, {', '.join(map(str, expected))}) was expected, "
            f"at least one image of the model's {size[0]}x{size[1]} px.",
            remedy="Resize and crop the images as the model's preprocessing says.",
        )
    return chosen[0], shape[0], raw


def npz_set(path: Path, preprocessing: Preprocessing) -> CalibrationSet:
    """Images in an ``.npz`` file.

    Args:
        path: Holds one array named ``images`` (or the only one of that kind): (N, H, W, 3) uint8 RGB of the
            model's input size, or (N, 3, H, W) float32, normalised already.
        preprocessing: The model's.

    Raises:
        CalibrationError: The file cannot be read, or its images are not of that kind.
    """
    name, count, raw = _image_array(path, preprocessing.crop_px)
    member = f"{name}.npy"
    digest = hashlib.sha256(dump_json(preprocessing).encode())
    firsts: set[bytes] = set()
    for rows in _stream(path, member):
        digest.update(rows.tobytes())
        if not raw and not np.isfinite(rows.astype(np.float32)).all():
            raise CalibrationError(f"{path} holds images with values that are not finite.")
        firsts |= {hashlib.sha256(row.tobytes()).digest() for row in rows}

    def batches() -> Iterator[Tensor]:
        for rows in _stream(path, member):
            images = normalised(rows.astype(np.uint8), preprocessing) if raw else rows.astype(np.float32)
            yield torch.from_numpy(images)

    return CalibrationSet(
        source=path.name,
        random=False,
        count=count,
        content_sha256=digest.hexdigest(),
        warnings=_warnings(count, len(firsts)),
        batches=batches,
    )


def _warnings(count: int, distinct: int) -> tuple[str, ...]:
    found = []
    if count < FEWEST:
        found.append(f"only {count} calibration images; {FEWEST} or more are advised")
    if distinct == 1 and count > 1:
        found.append(f"all {count} calibration images are the same")
    elif distinct < count // 2:
        found.append(f"only {distinct} of the {count} calibration images differ")
    return tuple(found)


def random_set(preprocessing: Preprocessing, seed: int = 0) -> CalibrationSet:
    """Random images, where there are no real ones; whatever is made of them is marked.

    Args:
        preprocessing: The model's.
        seed: Of the images.
    """
    size = preprocessing.crop_px

    def batches() -> Iterator[Tensor]:
        images = normalised(synthetic_pixels(RANDOM_IMAGES, size, seed=seed), preprocessing)
        for start in range(0, len(images), BATCH):
            yield torch.from_numpy(images[start : start + BATCH])

    return CalibrationSet(
        source="random",
        random=True,
        count=RANDOM_IMAGES,
        content_sha256=hashlib.sha256(f"random {seed} {size} {RANDOM_IMAGES}".encode()).hexdigest(),
        warnings=("the calibration images are random: accuracy on real images is not proven",),
        batches=batches,
    )


def calibration_set(source: str, preprocessing: Preprocessing) -> CalibrationSet:
    """What ``--calibration`` names.

    Args:
        source: ``random``, an ``.npz`` file, or a folder of images.
        preprocessing: The model's.

    Raises:
        CalibrationError: It is none of these, or not usable.
    """
    if source == "random":
        return random_set(preprocessing)
    path = Path(source)
    if not path.exists():
        raise CalibrationError(
            f"There is no calibration data at {path}.",
            remedy="Give an .npz file or a folder of images, or say random (and the result is marked so).",
        )
    if path.is_dir():
        return _folder_set(path, preprocessing)
    return npz_set(path, preprocessing)


def _folder_set(path: Path, preprocessing: Preprocessing) -> CalibrationSet:
    raise CalibrationError(f"{path} is a folder")  # replaced when pictures can be decoded
