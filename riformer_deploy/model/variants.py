"""The ten published RIFormer models, with their preprocessing: data only.

Accuracy, file names and hash prefixes are those of mmpretrain 1.2.0's
``configs/riformer/metafile.yml``; its FLOPs are multiply-adds and its parameter counts those of the
deploy form.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One published model.

    Attributes:
        name: mmpretrain's model name.
        config: mmpretrain's config file, without ``.py``.
        architecture: Its shape, 1000 classes.
        image_size_px: Side of the square input.
        resize_short_edge_px: Short edge before the centre crop.
        top1_percent: Published top-1 accuracy on ImageNet-1k.
        top5_percent: Published top-5 accuracy on ImageNet-1k.
        published_params_m: Published parameters in millions (deploy form).
        published_flops_g: Published multiply-adds in units of 1e9.
        file_name: The checkpoint's file name; the eight hexadecimal digits before ``.pth`` begin its sha256.
    """

    name: str
    config: str
    architecture: Architecture
    image_size_px: int
    resize_short_edge_px: int
    top1_percent: float
    top5_percent: float
    published_params_m: float
    published_flops_g: float
    file_name: str

    @property
    def sha256_prefix(self) -> str:
        """First eight hexadecimal digits of the published file's sha256."""
        return self.file_name.removesuffix(".pth").rsplit("-", 1)[1]

    @property
    def preprocessing(self) -> Preprocessing:
        """The published test pipeline."""
        return Preprocessing(
            resize_short_edge_px=self.resize_short_edge_px,
            crop_px=(self.image_size_px, self.image_size_px),
        )


_SMALL, _MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
ARCHITECTURES = {
    "s12": Architecture.from_arch((2, 2, 6, 2), _SMALL),
    "s24": Architecture.from_arch((4, 4, 12, 4), _SMALL),
    "s36": Architecture.from_arch((6, 6, 18, 6), _SMALL),
    "m36": Architecture.from_arch((6, 6, 18, 6), _MEDIUM),
    "m48": Architecture.from_arch((8, 8, 24, 8), _MEDIUM),
}
"""mmpretrain's named architectures, 1000 classes."""
_SHORT_EDGE_PX = {("s", 224): 248, ("m", 224): 236, ("s", 384): 426, ("m", 384): 404}
# size, side, images per GPU in the config, params (M), multiply-adds (G), top-1, top-5, hash prefix
_PUBLISHED = (
    ("s12", 224, 128, 11.915, 1.822, 76.90, 93.06, "6741ce71"),
    ("s24", 224, 128, 21.389, 3.412, 80.28, 94.80, "fdab072a"),
    ("s36", 224, 128, 30.863, 5.003, 81.29, 95.41, "fdfcd3b0"),
    ("m36", 224, 128, 56.173, 8.801, 82.57, 95.99, "2fcb9d9b"),
    ("m48", 224, 64, 73.473, 11.590, 82.75, 96.11, "2b9d1abf"),
    ("s12", 384, 128, 11.915, 5.355, 78.29, 93.93, "145eda4c"),
    ("s24", 384, 128, 21.389, 10.028, 81.36, 95.40, "bafae7ab"),
    ("s36", 384, 64, 30.863, 14.702, 82.22, 95.95, "017ed3c4"),
    ("m36", 384, 64, 56.173, 25.865, 83.39, 96.40, "66a6f764"),
    ("m48", 384, 64, 73.473, 34.060, 83.70, 96.60, "2e874826"),
)


def _variants() -> dict[str, Variant]:
    found = {}
    for size, side, per_gpu, params, flops, top1, top5, prefix in _PUBLISHED:
        large = side == 384
        name = f"riformer-{size}_in1k{'-384' if large else ''}"
        found[name] = Variant(
            name=name,
            config=f"riformer-{size}_8xb{per_gpu}_in1k{'-384px' if large else ''}",
            architecture=ARCHITECTURES[size],
            image_size_px=side,
            resize_short_edge_px=_SHORT_EDGE_PX[size[0], side],
            top1_percent=top1,
            top5_percent=top5,
            published_params_m=params,
            published_flops_g=flops,
            file_name=f"riformer-{size}_32xb128_in1k{'-384px' if large else ''}_20230406-{prefix}.pth",
        )
    return found


VARIANTS = _variants()
"""The ten published models by name."""


_NAME = re.compile(r"(?:riformer-)?([sm][0-9]{2})(?:_in1k)?(-384)?(?:px)?", re.IGNORECASE)


def variant_of(architecture: Architecture, image_size_px: tuple[int, int]) -> Variant | None:
    """The published model of a shape, or None.

    Args:
        architecture: With its number of classes.
        image_size_px: Height and width.
    """
    same = (item for item in VARIANTS.values() if item.architecture == architecture)
    return next((item for item in same if (item.image_size_px,) * 2 == image_size_px), None)


def find_variant(name: str) -> Variant | None:
    """The published model that a name means, or None.

    Args:
        name: As in :data:`VARIANTS`, or shorter: ``s12``, ``riformer-s12``, ``s12-384``.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return VARIANTS.get(f"riformer-{match[1].lower()}_in1k{match[2] or ''}")


def get_variant(name: str) -> Variant:
    """The published model of that name.

    Args:
        name: As :func:`find_variant` takes it, for example ``riformer-s12_in1k`` or ``s12``.

    Raises:
        OptionError: No published model has that name; the nearest is suggested.
    """
    found = find_variant(name)
    if found is not None:
        return found
    short = {known.removeprefix("riformer-").replace("_in1k", ""): known for known in VARIANTS}
    wanted = name.lower().removeprefix("riformer-").replace("_in1k", "").replace("px", "")
    near = difflib.get_close_matches(wanted, short, n=len(short), cutoff=0.5)
    nearest = max(near, key=lambda item: item[: len(wanted) - 1] == wanted[:-1], default=None)
    suggestion = f" Did you mean {short[nearest]}?" if nearest is not None else ""
    raise OptionError(
        f"There is no published RIFormer called {name!r}.{suggestion}",
        details=[f"known: {', '.join(VARIANTS)}"],
        remedy="Run `riformer-deploy models` for the list.",
    )
