"""What a bundle proves a server with: golden inputs with the reference's outputs, and encoded pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from riformer_deploy.backends.base import Outputs
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_pixels
from riformer_deploy.data.transforms import Images, normalize
from riformer_deploy.evaluation.reference_outputs import StoredReference, digest_of, load_samples

_SEED = 20230406


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Images whose outputs are known.

    Attributes:
        images: (N, 3, H, W) float32, normalised.
        outputs: The reference's, float64: ``logits``, ``probabilities`` and ``features``.
    """

    images: Images
    outputs: Outputs


def golden_of(bundle: Bundle) -> Golden:
    """The images and outputs that a bundle keeps of its parity report.

    Raises:
        BundleError: It keeps none, or not both of the same images.
    """
    remedy = "Export the checkpoint again."
    record, samples = bundle.manifest.reference_outputs, bundle.manifest.samples
    if record is None:
        raise BundleError(f"{bundle.directory} keeps no outputs of the reference.", remedy=remedy)
    stored = StoredReference.load(bundle.place_of(record), bundle.read(record))
    count = len(stored.outputs.outputs["logits"])
    if stored.pixels is not None:
        images = normalize(stored.pixels, bundle.manifest.model.preprocessing)
    elif samples is not None:
        images = np.ascontiguousarray(load_samples(bundle, samples)[:count])
    else:
        raise BundleError(f"{bundle.directory} keeps no images of its parity report.", remedy=remedy)
    if digest_of(images) != stored.images_sha256:
        raise BundleError(
            f"The outputs of the reference that {bundle.directory} keeps are not of the images it keeps.",
            remedy=remedy,
        )
    return Golden(images=images, outputs=stored.outputs.outputs)


def encoded_pictures(preprocessing: Preprocessing) -> tuple[bytes, ...]:
    """Pictures as clients send them, which take every step of the preprocessing: sizes and formats differ.

    Args:
        preprocessing: The bundle's; the pictures are as large as its crop, or larger.

    Returns:
        PNG, JPEG and PNG with alpha; the same bytes wherever Pillow and NumPy are the same.
    """
    height, width = preprocessing.crop_px
    sizes = ((height, width), (height + height // 3, width + width // 5), (height + 7, width + width // 2))
    kinds = (("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "RGBA"))
    made = []
    for number, (size, (kind, mode)) in enumerate(zip(sizes, kinds, strict=True)):
        (pixels,) = synthetic_pixels(1, size, seed=_SEED + number)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        made.append(file.getvalue())
    return tuple(made)
