"""Images as the network takes them: resized, cropped and normalised as mmpretrain's test pipeline does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import ImageError, OptionError
from riformer_deploy.data.decoding import Picture, Rgb, check_size
from riformer_deploy.data.preprocessing import Interpolation, Preprocessing, ResizeBackend

Images = NDArray[np.float32]
"""Normalised images, (N, 3, H, W) float32, C-contiguous."""

_FILTERS = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
    Interpolation.BOX: Image.Resampling.BOX,
    Interpolation.HAMMING: Image.Resampling.HAMMING,
}
_OPENCV_FILTERS = {
    Interpolation.NEAREST: "INTER_NEAREST",
    Interpolation.BILINEAR: "INTER_LINEAR",
    Interpolation.BICUBIC: "INTER_CUBIC",
    Interpolation.LANCZOS: "INTER_LANCZOS4",
    Interpolation.AREA: "INTER_AREA",
}


def check_supported(preprocessing: Preprocessing) -> None:
    """See that pictures can be brought to the network as training did, before the first is touched.

    Raises:
        OptionError: The stored test pipeline has steps that are not done here.
        MissingDependencyError: It resizes with OpenCV, which is not installed.
    """
    if preprocessing.unsupported:
        raise OptionError(
            "Pictures cannot be prepared as the test pipeline that training stored prepares them.",
            details=preprocessing.unsupported,
            remedy="Export again and say what to do instead: --preprocess short-edge=PX (or none), crop=PX; "
            "scores then differ from training's.",
        )
    if _resizes(preprocessing) and preprocessing.resize_backend is ResizeBackend.OPENCV:
        require("cv2")


def _resizes(preprocessing: Preprocessing) -> bool:
    return preprocessing.resize_short_edge_px is not None or preprocessing.resize_to_px is not None


def resized_size(size: tuple[int, int], short_edge_px: int) -> tuple[int, int]:
    """Size after bringing the short edge to ``short_edge_px``; the other is rounded down, as mmpretrain does.

    Args:
        size: Width and height.
        short_edge_px: The new short edge.
    """
    width, height = size
    if width < height:
        return short_edge_px, int(short_edge_px * height / width)
    return int(short_edge_px * width / height), short_edge_px


def fit(picture: Picture, preprocessing: Preprocessing, *, name: str = "the picture") -> Rgb:
    """Resize and crop; the result is what mmpretrain's test pipeline gives before normalisation, in RGB.

    Args:
        picture: (H, W, 3) uint8, RGB, or as Pillow holds it.
        preprocessing: The short edge, the filter and the centre crop.
        name: What errors call it.

    Returns:
        (crop height, crop width, 3) uint8, RGB, C-contiguous.

    Raises:
        ImageError: The picture is smaller than the crop (mmpretrain passes a smaller one on, which no
            artifact of fixed size takes), or so long and narrow that resizing it would exhaust memory.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    size = image.size
    if preprocessing.resize_to_px is not None:
        size = (preprocessing.resize_to_px[1], preprocessing.resize_to_px[0])
    elif preprocessing.resize_short_edge_px is not None:
        size = resized_size(image.size, preprocessing.resize_short_edge_px)
    if _resizes(preprocessing):
        check_size(size, f"{name}, resized from {image.width}x{image.height} px,")
        image = _resized(image, size, preprocessing)
    width, height = image.size
    crop_height, crop_width = preprocessing.crop_px
    if height < crop_height or width < crop_width:
        raise ImageError(
            f"{name} is {width}x{height} px where it is cropped, smaller than the crop of "
            f"{crop_width}x{crop_height} px.",
            remedy="Export with a short edge (--preprocess short-edge=PX), or leave such pictures out.",
        )
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    box = (left, top, left + crop_width, top + crop_height)
    return np.ascontiguousarray(np.asarray(image.crop(box)))


def _resized(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    interpolation = Interpolation(preprocessing.interpolation)
    match preprocessing.resize_backend:
        case ResizeBackend.PILLOW:
            return image.resize(size, _FILTERS[interpolation])
        case ResizeBackend.OPENCV:
            cv2 = require("cv2")
            flag = getattr(cv2, _OPENCV_FILTERS[interpolation])
            return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=flag))
        case _:
            assert_never(preprocessing.resize_backend)


def normalize(pictures: Sequence[Rgb] | NDArray[np.uint8], preprocessing: Preprocessing) -> Images:
    """Pictures of one size as the network's input.

    Args:
        pictures: Each (H, W, 3) uint8, RGB, of the crop's size.
        preprocessing: Mean, deviation and channel order.

    Returns:
        (N, 3, H, W) float32.
    """
    stacked = np.stack(list(pictures)).transpose(0, 3, 1, 2)
    if preprocessing.channel_order == "BGR":
        stacked = stacked[:, ::-1]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    images: Images = np.subtract(stacked, mean, dtype=np.float32, order="C")
    images /= std
    return images


def pixels_of(images: Images, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The pictures that normalised images were made of.

    Args:
        images: (N, 3, H, W) float32 from :func:`normalize`.
        preprocessing: The same.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        OptionError: The images are not normalised pictures of 8 bits.
    """
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    raw = images.transpose(0, 2, 3, 1).astype(np.float64) * std + mean
    pixels = np.round(raw)
    if np.abs(raw - pixels).max() > 0.01 or pixels.min() < 0 or pixels.max() > 255:
        raise OptionError(
            "A model that takes uint8 can only be compared on pictures; these images are normalised already.",
            remedy="Calibrate with (N, H, W, 3) uint8 images.",
        )
    ordered = pixels[..., ::-1] if preprocessing.channel_order == "BGR" else pixels
    return np.ascontiguousarray(ordered.astype(np.uint8))
