"""What the reference gives on the images of a parity report: computed, kept in a bundle, and read again.

Kept in float64, so that a machine without PyTorch compares with the very numbers that the export did.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import ANY_BATCH, BatchRange, Candidate, Outputs, Runtime, run_all
from riformer_deploy.bundle.artifacts import FileRecord
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError, RuntimeFailureError
from riformer_deploy.common.files import open_regular
from riformer_deploy.common.foreign_data import foreign_data
from riformer_deploy.data.array_files import parse_array
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.metrics import deviation
from riformer_deploy.model.architecture import MAPS

_CHUNK = 8
"""Images that the reference runs at once: in float64 its activations are large."""
TAPPED = 2
"""Images whose stages and blocks are compared."""
MOST_STAGE_BYTES = 10 * 2**20
"""Stages that take more are not kept: those of models at 224 px take 6 to 9 MB, at 384 px 18 to 27.

Nor are maps, which are compared on all images: four of a model at 224 px take 40 to 60 MB.
"""
SAME_RELATIVE_L2 = 1e-9
"""How far two computations of the reference may be apart.

Float64 rounds to 1.1e-16. The longest sums, of a norm's statistics, have 2e5 to 9e5 terms, so that each is
right to 1e-10 even where all roundings add up, and errors of 50 to 200 layers add up in turn; other orders of
summing (threads, another BLAS) differ by 1e-15 to 1e-13 in fact. The tightest tolerance is 1e-5: what is
below 1e-9 cannot turn a verdict, and a wrong weight or picture is far above it.
"""
_OUTPUTS = ("logits", "probabilities", "features")


@dataclass(frozen=True, kw_only=True)
class ReferenceOutputs:
    """Outputs and stages of the reference.

    Attributes:
        outputs: ``logits``, ``probabilities`` and ``features`` of every image, float64, and the maps that
            the bundle's graphs give; no maps where they were too large to keep.
        stages: Activations after the last block of each stage, by its name, of the first ``TAPPED`` images of
            the first batch; none where they were too large to keep.
    """

    outputs: Outputs
    stages: Outputs

    def relative_l2_from(self, other: ReferenceOutputs) -> float:
        """The largest relative L2 distance of an array from that of ``other``; infinity for another shape."""
        distances = []
        for mine, theirs in ((self.outputs, other.outputs), (self.stages, other.stages)):
            for name, values in mine.items():
                if name not in theirs or theirs[name].shape != values.shape:
                    return float("inf")
                distance = deviation(theirs[name], values, rtol=0.0, atol=1.0)
                if not distance.finite:
                    return float("inf")
                distances.append(distance.relative_l2 or 0.0)
        return max(distances)


def run_batches(
    runtime: Runtime, images: Images, batches: Sequence[int], taken: BatchRange = ANY_BATCH
) -> Outputs:
    """Outputs of all images, run batch by batch, in sizes that the model takes, and put together again."""
    parts: dict[str, list[np.ndarray]] = {}
    start = 0
    for size in batches:
        for name, values in run_all(runtime, images[start : start + size], taken).items():
            parts.setdefault(name, []).append(values)
        start += size
    return {name: np.concatenate(values) for name, values in parts.items()}


def _chunks(count: int) -> list[int]:
    return [_CHUNK] * (count // _CHUNK) + ([count % _CHUNK] if count % _CHUNK else [])


def run_reference(
    reference: Candidate, images: Images, tapped: Images, blocks: Sequence[Sequence[str]]
) -> ReferenceOutputs:
    """Run the reference.

    Args:
        reference: The training form in float64.
        images: Every image.
        tapped: Those whose stages are compared.
        blocks: Names of the blocks of each stage, in order.

    Raises:
        RuntimeFailureError: It cannot be loaded or run, or gives values that are not finite, so that nothing
            can be compared with it.
        MissingDependencyError: PyTorch is not installed.
    """
    runtime = reference.open()
    try:
        outputs = run_batches(runtime, images, _chunks(len(images)))
        stages = runtime.tap(tapped, [names[-1] for names in blocks])
    finally:
        runtime.close()
    endless = [name for name, values in {**outputs, **stages}.items() if not np.isfinite(values).all()]
    if endless:
        raise RuntimeFailureError(
            f"The reference ({reference.name}) overflows on these images: nothing can be compared.",
            details=endless,
            remedy="Check the checkpoint's weights; values this large come of a diverged training.",
        )
    return ReferenceOutputs(outputs=outputs, stages=stages)


def digest_of(images: Images) -> str:
    """sha256 over the values of images."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def _kept(arrays: Outputs) -> Outputs:
    """These arrays, or none where they are too large to keep."""
    return arrays if sum(values.nbytes for values in arrays.values()) <= MOST_STAGE_BYTES else {}


def _check_members(file: IO[bytes]) -> None:
    """See that an ``.npz`` is one of ``np.savez``: nothing is unpacked to more bytes than the file has."""
    size_bytes = file.seek(0, os.SEEK_END)
    with ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != ZIP_STORED for member in members):
        raise ValueError("its members are compressed")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("it holds a member twice")
    if sum(member.file_size for member in members) > size_bytes:
        raise ValueError("its members are larger than the file")
    file.seek(0)


@dataclass(frozen=True, kw_only=True)
class StoredReference:
    """Outputs of the reference as a bundle keeps them.

    Attributes:
        outputs: These.
        images_sha256: Of the images that they are of.
        pixels: These images as pictures, (N, H, W, 3) uint8, where the bundle has them nowhere else: noise
            and waves may come out otherwise where NumPy computes otherwise.
    """

    outputs: ReferenceOutputs
    images_sha256: str
    pixels: NDArray[np.uint8] | None

    def save(self, path: Path) -> None:
        """Write them as ``.npz``, without stages and maps that are too large.

        Raises:
            OSError: The file cannot be written.
        """
        given = self.outputs.outputs
        pixels = {} if self.pixels is None else {"images": self.pixels}
        arrays = {
            "images_sha256": np.array(self.images_sha256),
            **pixels,
            **{name: values for name, values in given.items() if name not in MAPS},
            **_kept({name: values for name, values in given.items() if name in MAPS}),
            **_kept(self.outputs.stages),
        }
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub

    @classmethod
    def load(cls, path: Path, content: bytes | None = None) -> StoredReference:
        """Read them.

        Args:
            path: The file.
            content: Its content, where that was read and checked; None reads the file.

        Raises:
            BundleError: The file is not one of :meth:`save`'s.
        """
        try:
            with open_regular(path) if content is None else io.BytesIO(content) as file:
                _check_members(file)
                stored = np.load(file, allow_pickle=False)
                arrays = {name: stored[name] for name in stored.files}
            return cls(
                outputs=ReferenceOutputs(
                    outputs={name: arrays[name] for name in (*_OUTPUTS, *(m for m in MAPS if m in arrays))},
                    stages={name: values for name, values in arrays.items() if name.startswith("backbone.")},
                ),
                images_sha256=str(arrays["images_sha256"]),
                pixels=arrays.get("images"),
            )
        except Exception as err:  # the parsers of zip and NumPy raise whatever they stumble upon
            raise BundleError(
                f"{path} does not hold outputs of the reference: {err}", remedy="Export the checkpoint again."
            ) from err


def load_samples(bundle: Bundle, record: FileRecord) -> Images:
    """Images of a bundle's ``samples.npy``: (N, 3, H, W) float32, finite, of the model's size.

    Raises:
        BundleError: The file holds something else.
        BundleIntegrityError: The file is not the recorded one.
    """
    path, content = bundle.place_of(record), bundle.read(record)
    height, width = bundle.manifest.model.preprocessing.crop_px
    remedy = "Export the checkpoint again."
    with foreign_data(path, BundleError, kind="a file of images as numpy.save writes it", remedy=remedy):
        images = parse_array(content)
    if images.dtype != np.float32 or images.shape[1:] != (3, height, width):
        raise BundleError(
            f"{path} holds {images.dtype} values of shape {images.shape}; expected are float32 and "
            f"(N, 3, {height}, {width}).",
            remedy=remedy,
        )
    if not np.isfinite(images).all():
        raise BundleError(f"{path} holds values that are not finite.", remedy=remedy)
    return images
