"""What is done to an image before the network sees it, as a record."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class ResizeBackend(StrEnum):
    """What resizes; their pixels differ, since OpenCV's filters do not widen where a picture shrinks."""

    PILLOW = "pillow"
    OPENCV = "cv2"


class Interpolation(StrEnum):
    """Filters, by the names that mmcv gives them."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"
    HAMMING = "hamming"
    AREA = "area"


FILTERS = {
    ResizeBackend.PILLOW: ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"),
    ResizeBackend.OPENCV: ("nearest", "bilinear", "bicubic", "lanczos", "area"),
}
"""Filters that each has."""


LARGEST_SIDE_PX = 4096
"""Of a crop: the pictures of a parity report take 2.6 GiB at this size."""
_LARGEST_VALUE = 1e6
"""Of mean and std, so that float32 holds every picture: values are from 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to an image before the network sees it.

    Attributes:
        resize_short_edge_px: The short edge is resized to this; None leaves the image as it is.
        crop_px: Height and width of the centre crop.
        interpolation: The filter of the resize.
        mean: Subtracted per channel, in 0..255 units, in ``channel_order``.
        std: Divided by per channel, in 0..255 units, in ``channel_order``.
        channel_order: Order of the channels that the network expects.
        source: Where the record comes from.
        resize_to_px: Height and width that the image is resized to, whatever its shape; None for no such
            resize.
        resize_backend: What resizes.
        unsupported: Steps of the test pipeline that training stored and that are not done here; pictures
            are refused as long as there are any.
    """

    resize_short_edge_px: int | None
    crop_px: tuple[int, int]
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channel_order: str = "RGB"
    source: str = "variant"
    resize_to_px: tuple[int, int] | None = None
    resize_backend: ResizeBackend = ResizeBackend.PILLOW
    unsupported: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = self._size_problems()
        if self.interpolation not in tuple(Interpolation):
            problems.append(f"interpolation {self.interpolation!r} is none of {', '.join(Interpolation)}")
        elif self.interpolation not in FILTERS[self.resize_backend]:
            problems.append(f"{self.resize_backend} has no interpolation {self.interpolation}")
        if not all(abs(value) <= _LARGEST_VALUE for value in self.mean):
            problems.append(f"mean must be finite, within {_LARGEST_VALUE:g} of 0")
        if not all(1 / _LARGEST_VALUE <= value <= _LARGEST_VALUE for value in self.std):
            problems.append(f"std must be positive, from {1 / _LARGEST_VALUE:g} to {_LARGEST_VALUE:g}")
        if self.channel_order not in {"RGB", "BGR"}:
            problems.append(f"channel order {self.channel_order!r} is neither RGB nor BGR")
        if problems:
            raise ValueError("; ".join(problems))

    def _size_problems(self) -> list[str]:
        problems = []
        if min(*self.crop_px, *(self.resize_to_px or ()), self.resize_short_edge_px or 1) < 1:
            problems.append("sizes must be at least 1 px")
        if max(self.crop_px) > LARGEST_SIDE_PX:
            problems.append(f"a crop may be at most {LARGEST_SIDE_PX:,} px a side, got {self.crop_px}")
        if self.resize_short_edge_px is not None and self.resize_short_edge_px < min(self.crop_px):
            problems.append(
                f"a short edge of {self.resize_short_edge_px} px is smaller than the crop of "
                f"{self.crop_px[0]}x{self.crop_px[1]} px (height x width)"
            )
        if self.resize_to_px is not None:
            if self.resize_short_edge_px is not None:
                problems.append("a resize of the short edge and one to a fixed size exclude each other")
            if any(side < crop for side, crop in zip(self.resize_to_px, self.crop_px, strict=True)):
                problems.append(f"a size of {self.resize_to_px} is smaller than the crop of {self.crop_px}")
        return problems
