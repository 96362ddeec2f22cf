"""Labelled pictures: ImageNet as mmpretrain documents it, plain class folders, and ``.npz``."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.errors import DatasetError
from riformer_deploy.common.files import read_regular
from riformer_deploy.common.foreign_data import foreign_data
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.data.array_files import open_arrays
from riformer_deploy.data.class_folders import ClassList, match_folders
from riformer_deploy.data.decoding import Picture, Rgb, decode_picture
from riformer_deploy.data.image_files import FolderContent, is_hidden, merged, walk_pictures

LAYOUTS = (
    "DIR/SPLIT/CLASS/*.jpg, DIR/CLASS/*.jpg, DIR/SPLIT/*.jpg with DIR/meta/SPLIT.txt (lines of FILE LABEL), "
    "or a .npz with images (N, H, W, 3) uint8 and labels (N,)"
)

_MOST_LISTING_BYTES = 256 << 20  # five million pictures
_LONGEST_LABEL = 9


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled picture.

    Attributes:
        name: Its path below the dataset's folder, or its place in the array.
        label: Number of its class.
        path: The file; None where the pixels are in the dataset's array, at ``index``.
        index: Place in the array.
    """

    name: str
    label: int
    path: Path | None = None
    index: int = 0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled pictures in a fixed order.

    Attributes:
        location: Where they are, as the user said it.
        layout: What was found there, in words.
        samples: Those to be used.
        total: How many there are, used or not.
        identity: sha256 over names, sizes, times of change and labels (over the content of a ``.npz``).
        notes: What the user should know, such as files that are no pictures.
        arrays: Pixels, (N, H, W, 3) uint8, where they are not in files.
    """

    location: str
    layout: str
    samples: tuple[Sample, ...]
    total: int
    identity: str
    notes: tuple[str, ...] = ()
    arrays: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def name_of(self, index: int) -> str:
        """What errors call a picture."""
        return self.samples[index].name

    def picture(self, index: int) -> Picture:
        """Decode a picture; raises ImageError where that cannot be done."""
        sample = self.samples[index]
        if sample.path is not None:
            return decode_picture(sample.path)
        if self.arrays is None:
            raise ValueError("a sample without a file needs the dataset's array")
        pixels: Rgb = self.arrays[sample.index]
        return pixels

    def limited(self, limit: int | None) -> Dataset:
        """``limit`` pictures spread evenly over all of them, so that every class is met."""
        if limit is None or limit >= len(self.samples):
            return self
        chosen = tuple(self.samples[number * len(self.samples) // limit] for number in range(limit))
        return dataclasses.replace(self, samples=chosen)


def open_dataset(location: Path, classes: ClassList, *, split: str = "val") -> Dataset:
    """Find the labelled pictures at a place, whichever of the layouts it has.

    Args:
        location: A folder or a ``.npz`` file.
        classes: The model's; folders are matched with them.
        split: ``val`` or another part of the dataset.

    Raises:
        DatasetError: Nothing is there, only other splits are, or labels do not fit the classes.
    """
    with foreign_data(location, DatasetError, kind="a dataset", remedy=f"Expected {LAYOUTS}."):
        if location.is_file():
            found = _from_npz(location, split)
        elif not location.is_dir():
            raise DatasetError(f"There is no dataset at {location}.", remedy=f"Expected {LAYOUTS}.")
        elif (location / "meta" / f"{split}.txt").is_file():
            found = _from_list(location, split)
        else:
            found = _from_folders(location, split, classes)
    outside = [s for s in found.samples if not 0 <= s.label < classes.count]
    if outside:
        raise DatasetError(
            f"{len(outside)} labels of {location} are no classes of the model, which has {classes.count}.",
            details=[f"{sample.name}: {sample.label}" for sample in outside[:20]],
            remedy="Use the dataset that the model was trained for; labels count from 0.",
        )
    if not found.samples:
        raise DatasetError(f"{location} holds no pictures.", remedy=f"Expected {LAYOUTS}.")
    return found


def _identity(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _of_files(location: Path, layout: str, samples: Sequence[Sample], notes: Sequence[str]) -> Dataset:
    def state(path: Path | None) -> str:
        try:
            found = path.stat() if path is not None else None
        except OSError:
            found = None  # decoding it will say so
        return f"{found.st_size} {found.st_mtime_ns}" if found is not None else "missing"

    return Dataset(
        location=str(location),
        layout=layout,
        samples=tuple(samples),
        total=len(samples),
        identity=_identity(f"{s.name} {s.label} {state(s.path)}" for s in samples),
        notes=tuple(notes),
    )


def _from_list(location: Path, split: str) -> Dataset:
    listing = location / "meta" / f"{split}.txt"
    pictures = location / split
    if not pictures.is_dir():
        raise DatasetError(f"{listing} lists pictures, but their folder {pictures} does not exist.")
    try:
        lines = read_regular(listing, _MOST_LISTING_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DatasetError(f"{listing} cannot be read: {err}") from err
    samples, problems = [], []
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if name and len(label) <= _LONGEST_LABEL and label.isdecimal():
            samples.append(Sample(name=f"{split}/{name}", label=int(label), path=pictures / name))
        else:
            problems.append(f"line {number}: {line.strip()[:80]!r}")
    if problems:
        raise DatasetError(f"{listing} has lines that are not FILE LABEL.", details=problems)
    return _of_files(location, f"flat folder {split}/ with meta/{split}.txt", samples, ())


def _from_folders(location: Path, split: str, classes: ClassList) -> Dataset:
    root = location / split if (location / split).is_dir() else location
    entries = sorted(path for path in root.iterdir() if not is_hidden(path.name))
    folders = [path.name for path in entries if path.is_dir()]
    if not folders:
        raise DatasetError(f"{root} holds no class folders.", remedy=f"Expected {LAYOUTS}.")
    match = match_folders(root, folders, classes)
    notes = [] if root != location else [f"there is no folder {split}/ in it; it is taken as a whole"]
    notes += match.notes
    loose = [path.name for path in entries if not path.is_dir()]
    if loose:
        notes.append(f"left out, in no class folder: {len(loose)} ({', '.join(loose[:5])})")
    samples, left_out, empty = [], list[FolderContent](), []
    for folder in folders:
        content = walk_pictures(root / folder)
        left_out.append(content)
        if not content.pictures:
            empty.append(folder)
        samples += [
            Sample(name=str(path.relative_to(location)), label=match.labels[folder], path=path)
            for path in content.pictures
        ]
    notes += merged(left_out).notes(root)
    if empty:
        notes.append(f"{len(empty)} class folders hold no pictures: {', '.join(empty[:10])}")
    return _of_files(location, f"{len(folders)} class folders, {match.how}", samples, notes)


_ARRAY_PICTURE = re.compile(r"(?:([^:\[\]]*)_)?images\[[0-9]+\]")


def array_split(name: str) -> str | None:
    """The split whose array holds a picture; empty where arrays have no split, None where it is a file.

    Args:
        name: As :func:`open_dataset` gives it.
    """
    match = _ARRAY_PICTURE.fullmatch(name.rpartition(":")[2])
    return None if match is None else match[1] or ""


def _from_npz(location: Path, split: str) -> Dataset:
    with (
        foreign_data(location, DatasetError, kind="an .npz file", remedy=f"Expected {LAYOUTS}."),
        open_arrays(location) as stored,
    ):
        prefix = f"{split}_" if f"{split}_images" in stored.arrays else ""
        wanted = (f"{prefix}images", f"{prefix}labels")
        missing = [name for name in wanted if name not in stored.arrays]
        if missing:
            raise DatasetError(
                f"{location} has no arrays {' and '.join(missing)}; it has {', '.join(stored.arrays)}.",
                remedy=f"Expected {LAYOUTS}.",
            )
        images, labels = (stored.read(name) for name in wanted)
    problems = []
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        problems.append(f"{wanted[0]} is {images.dtype} {images.shape}; (N, H, W, 3) uint8 was expected")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        problems.append(f"{wanted[1]} is {labels.dtype} {labels.shape}; one integer an image was expected")
    if problems:
        raise DatasetError(f"{location} cannot be used.", details=problems)
    samples = tuple(
        Sample(name=f"{location.name}:{wanted[0]}[{number}]", label=int(label), index=number)
        for number, label in enumerate(labels)
    )
    return Dataset(
        location=str(location),
        layout=f"arrays {wanted[0]} and {wanted[1]}",
        samples=samples,
        total=len(samples),
        identity=_identity([sha256_of(location), *wanted]),
        arrays=images,
    )
