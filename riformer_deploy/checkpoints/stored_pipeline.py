"""Reads the test pipeline out of a stored config: what is done to a picture, and what of it is not done here.

Geometry and normalisation stand at different places of a config and are read apart: a step that is not
understood leaves the mean, the deviation and the order of the channels known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from riformer_deploy.checkpoints.allowlists import SCOPES, is_number, shown
from riformer_deploy.checkpoints.config_text import assignments
from riformer_deploy.data.preprocessing import Interpolation, Preprocessing, ResizeBackend

_ROOTS = ("mmcv", "mmengine", *SCOPES)
_PACKING = {"PackInputs", "PackClsInputs"}
_LOADING = {"type", "backend_args", "file_client_args", "ignore_empty", "imdecode_backend", "_scope_"}
_AS_HERE = {"color_type": ["color"], "to_float32": [False]}
_RESIZING = {"type", "scale", "backend", "interpolation", "_scope_"}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What is done to a picture before it is normalised.

    Attributes:
        resize_short_edge_px: As in :class:`~riformer_deploy.data.preprocessing.Preprocessing`.
        resize_to_px: As there.
        interpolation: As there.
        resize_backend: As there.
        crop_px: As there.
    """

    resize_short_edge_px: int | None = None
    resize_to_px: tuple[int, int] | None = None
    interpolation: Interpolation = Interpolation.BICUBIC
    resize_backend: ResizeBackend = ResizeBackend.PILLOW
    crop_px: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What is done to a picture's values.

    Attributes:
        mean: Per channel, in 0..255 units.
        std: Per channel, in 0..255 units.
        channel_order: ``RGB`` or ``BGR``.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str


@dataclass(frozen=True, kw_only=True)
class StoredPipeline:
    """What a stored config says of the preprocessing.

    Attributes:
        geometry: None where no test pipeline is stored, or not all of it is understood.
        normalisation: None where no data preprocessor is stored, or it is not understood.
        unsupported: Steps of a stored test pipeline that are not done here, and why.
        remarks: What is done here otherwise in special cases.
    """

    geometry: Geometry | None = None
    normalisation: Normalisation | None = None
    unsupported: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The whole of it, where all of it is known."""
        if self.geometry is None or self.normalisation is None:
            return None
        return Preprocessing(**vars(self.geometry), **vars(self.normalisation), source="checkpoint")


def read_pipeline(text: str) -> StoredPipeline:
    """What a stored config says of the preprocessing.

    Args:
        text: Content of ``meta['cfg']``; where it is not Python, nothing is said.
    """
    return _read(assignments(text))


def preprocessing_of(text: str) -> Preprocessing | None:
    """The preprocessing that a config describes; None where it does not tell all of it, understandably.

    Args:
        text: Content of ``meta['cfg']``.
    """
    return read_pipeline(text).preprocessing


def crop_of(known: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the pictures that a config's pipeline gives; None where they are not known.

    Args:
        known: The config's values by name.
    """
    geometry = _read(known).geometry
    return None if geometry is None else geometry.crop_px


def _read(known: dict[str, Any]) -> StoredPipeline:
    normalisation = _normalisation(known)
    steps = _test_pipeline(known)
    if steps is None:
        return StoredPipeline(normalisation=normalisation)
    if not isinstance(steps, list):
        why = f"the test pipeline is {shown(steps)}; a list of steps was expected"
        return StoredPipeline(normalisation=normalisation, unsupported=(why,))
    reader = _Reader(scope=known.get("default_scope"))
    problems = [text for text in map(reader.take, steps) if text is not None]
    geometry, gap = reader.geometry() if not problems else (None, None)
    return StoredPipeline(
        geometry=geometry,
        normalisation=normalisation,
        unsupported=(*problems, *([gap] if gap is not None else ())),
        remarks=tuple(reader.remarks) if geometry is not None else (),
    )


def _test_pipeline(known: dict[str, Any]) -> Any:
    """What mmengine runs: the test dataloader's pipeline; the variable that it was made of may be stale."""
    loader = known.get("test_dataloader")
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    used = dataset.get("pipeline") if isinstance(dataset, dict) else None
    return known.get("test_pipeline") if used is None else used


def _normalisation(known: dict[str, Any]) -> Normalisation | None:
    """The preprocessor's settings; mmengine lets the model's own go before the top level's."""
    model = known.get("model")
    found = model.get("data_preprocessor") if isinstance(model, dict) else None
    if found is None:
        found = known.get("data_preprocessor")
    if not isinstance(found, dict):
        return None
    to_rgb = found.get("to_rgb", False)
    if found.get("mean") is None:  # without one, mmpretrain's preprocessor does not normalise
        found = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    mean = _triple(found["mean"], positive=False)
    std = _triple(found.get("std"), positive=True)
    if mean is None or std is None or to_rgb not in (True, False):
        return None
    return Normalisation(mean=mean, std=std, channel_order="RGB" if to_rgb else "BGR")


def _triple(value: Any, *, positive: bool) -> tuple[float, float, float] | None:
    if isinstance(value, list) and len(value) == 3 and all(map(is_number, value)):
        found = (float(value[0]), float(value[1]), float(value[2]))
        if not positive or min(found) > 0:
            return found
    return None


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _height_width(value: Any) -> tuple[int, int] | None:
    """Of mmcv's one number, or width and height."""
    if _is_size(value):
        return value, value
    if isinstance(value, list) and len(value) == 2 and all(map(_is_size, value)):
        return value[1], value[0]
    return None


class _Reader:
    """Takes the steps of a pipeline one by one."""

    def __init__(self, *, scope: Any) -> None:
        self.remarks: list[str] = []
        self._known_scope = scope in (None, "mmengine", *SCOPES)
        self._resize: dict[str, Any] = {}
        self._crop: tuple[int, int] | None = None

    def take(self, step: Any) -> str | None:
        """Take one step; why it is not done here, where it is not."""
        name = self._name(step)
        understood = False
        match name:
            case "LoadImageFromFile":
                understood = self._load(step)
            case "ResizeEdge":
                understood = self._resize_edge(step)
            case "Resize":
                understood = self._resize_to(step)
            case "CenterCrop":
                understood = self._center_crop(step)
            case _:
                understood = name in _PACKING
        return None if understood else f"{shown(step)} is not done here"

    def geometry(self) -> tuple[Geometry | None, str | None]:
        """What the steps come to, or why they come to nothing."""
        crop = self._crop or self._resize.get("resize_to_px")
        if crop is None:
            return None, "it brings pictures to no fixed size"
        try:
            found = Geometry(**self._resize, crop_px=crop)
            Preprocessing(**vars(found))  # which checks that they fit together
        except ValueError as err:
            return None, str(err)
        return found, None

    def _name(self, step: Any) -> str | None:
        """The class of a step, whether named alone, with its scope or by its path."""
        kind = step.get("type") if isinstance(step, dict) else None
        if not isinstance(kind, str):
            return None
        path, _, name = kind.rpartition(".")
        root: Any = path.partition(".")[0] or step.get("_scope_")
        return name if (self._known_scope if root is None else root in _ROOTS) else None

    def _load(self, step: dict[str, Any]) -> bool:
        rest = {name: value for name, value in step.items() if name not in _LOADING}
        decoder = step.get("imdecode_backend", "cv2")
        if decoder != "cv2":
            self.remarks.append(f"it decodes with {decoder}; here pictures are decoded as OpenCV does")
        return all(_AS_HERE.get(name) == [value] for name, value in rest.items())

    def _resize_edge(self, step: dict[str, Any]) -> bool:
        fits = _RESIZING | {"edge"} >= step.keys() and step.get("edge", "short") == "short"
        if not fits or not _is_size(step.get("scale")):
            return False
        return self._set_resize(step, resize_short_edge_px=step["scale"])

    def _resize_to(self, step: dict[str, Any]) -> bool:
        size = _height_width(step.get("scale"))
        fits = _RESIZING | {"keep_ratio", "clip_object_border"} >= step.keys()
        if not fits or size is None or step.get("keep_ratio", False) is not False:
            return False
        return self._set_resize(step, resize_to_px=size)

    def _set_resize(self, step: dict[str, Any], **size: Any) -> bool:
        backend, interpolation = step.get("backend", "cv2"), step.get("interpolation", "bilinear")
        if self._resize or self._crop or backend not in list(ResizeBackend):
            return False
        if interpolation not in list(Interpolation):
            return False
        self._resize = {
            **size,
            "resize_backend": ResizeBackend(backend),
            "interpolation": Interpolation(interpolation),
        }
        return True

    def _center_crop(self, step: dict[str, Any]) -> bool:
        size = _height_width(step.get("crop_size"))
        if self._crop or size is None or not {"type", "crop_size", "auto_pad", "_scope_"} >= step.keys():
            return False
        if step.get("auto_pad", False) is not False:
            self.remarks.append("it pads pictures that are smaller than the crop; here they are refused")
        self._crop = size
        return True
