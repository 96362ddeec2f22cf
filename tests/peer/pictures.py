"""Random pictures of every kind of file that both sides read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PICTURES = 50


def pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Random pictures of every kind of file, of random size, from one pixel up."""
    rng = np.random.Generator(np.random.PCG64(20230406))
    kinds = (
        "jpeg", "full-chroma jpeg", "progressive jpeg", "grey jpeg", "cmyk jpeg", "rotated jpeg",
        "png", "grey png", "16-bit grey png", "palette png", "alpha png", "webp", "lossy webp", "bmp",
    )  # fmt: skip
    for number in range(PICTURES):
        kind = kinds[number % len(kinds)]
        height, width = (int(side) for side in rng.integers(1, 700, 2))
        coarse = rng.integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        noise = rng.integers(0, 40, smooth.shape)
        pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        path = folder / f"{number:02d}.{kind.rsplit(maxsplit=1)[-1]}"
        path.write_bytes(_encoded(kind, pixels, rng))
        yield kind, path


def _encoded(kind: str, pixels: NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    image = Image.fromarray(pixels)
    options: dict[str, Any] = {}
    match kind:
        case "full-chroma jpeg":
            options = {"subsampling": 0, "quality": 95}
        case "progressive jpeg":
            options = {"progressive": True}
        case "grey jpeg" | "grey png":
            image = image.convert("L")
        case "cmyk jpeg":
            image = image.convert("CMYK")
        case "rotated jpeg":
            exif = Image.Exif()
            exif[0x0112] = int(rng.integers(2, 9))
            options = {"exif": exif}
        case "16-bit grey png":
            image = Image.fromarray(rng.integers(0, 65536, pixels.shape[:2]).astype(np.uint16))
        case "palette png":
            image = image.quantize(100)
        case "alpha png":
            image = Image.fromarray(np.dstack([pixels, rng.integers(0, 256, pixels.shape[:2], np.uint8)]))
        case "webp":
            options = {"lossless": True}
        case _:
            pass
    stream = io.BytesIO()
    image.save(stream, kind.rsplit(maxsplit=1)[-1], **options)
    return stream.getvalue()
