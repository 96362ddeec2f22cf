"""What a user says of the preprocessing, setting by setting; it goes before every other source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Interpolation, Preprocessing, ResizeBackend

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class PreprocessingChanges:
    """What a user says of the preprocessing; None leaves a setting as the checkpoint or the variant has it.

    Attributes:
        resize_short_edge_px: The short edge; 0 for no resize at all.
        crop_px: Height and width of the centre crop, the network's input.
        interpolation: The filter.
        mean: Per channel, in 0..255 units.
        std: Per channel, in 0..255 units.
        channel_order: ``RGB`` or ``BGR``.
        resize_backend: What resizes.
    """

    resize_short_edge_px: int | None = None
    crop_px: tuple[int, int] | None = None
    interpolation: Interpolation | None = None
    mean: Triple | None = None
    std: Triple | None = None
    channel_order: str | None = None
    resize_backend: ResizeBackend | None = None

    def apply(self, found: Preprocessing) -> Preprocessing:
        """``found`` with these settings.

        Raises:
            OptionError: Together they make no sense, such as a crop larger than the short edge.
        """
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changes = {name: value for name, value in own.items() if value is not None}
        if not changes:
            return found
        if self.resize_short_edge_px is not None:  # it takes the place of every other resize, known or not
            changes |= {"resize_to_px": None, "unsupported": ()}
        if self.resize_short_edge_px == 0:
            changes["resize_short_edge_px"] = None
        try:
            return dataclasses.replace(found, **changes, source="option")
        except ValueError as err:
            raise OptionError(f"The preprocessing cannot be as asked: {err}.") from err


AS_FOUND = PreprocessingChanges()
"""No change."""


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    return int(height), int(width or height)


def _channels(text: str) -> Triple:
    first, second, third = (float(value) for value in text.split("/"))
    return first, second, third


_SETTINGS: dict[str, tuple[str, Callable[[str], object]]] = {
    "short-edge": ("resize_short_edge_px", lambda text: 0 if text == "none" else int(text)),
    "crop": ("crop_px", _size),
    "interpolation": ("interpolation", Interpolation),
    "mean": ("mean", _channels),
    "std": ("std", _channels),
    "order": ("channel_order", str.upper),
    "backend": ("resize_backend", ResizeBackend),
}


def changes_text(changes: PreprocessingChanges) -> str:
    """The settings as :func:`parse_changes` reads them; empty where there are none."""
    said = []
    for name, (field, _) in _SETTINGS.items():
        value = getattr(changes, field)
        if value is None:
            continue
        if isinstance(value, tuple):
            value = ("x" if field == "crop_px" else "/").join(map(str, value))
        said.append(f"{name}={'none' if value == 0 else value}")
    return ",".join(said)


EXAMPLE = (
    "short-edge=248,crop=224,interpolation=bicubic,mean=123.675/116.28/103.53,"
    "std=58.395/57.12/57.375,order=RGB,backend=pillow"
)
"""Every setting."""


def parse_changes(text: str) -> PreprocessingChanges:
    """Read ``short-edge=248,crop=224,...``.

    Args:
        text: Settings as in :data:`EXAMPLE`, any of them; ``short-edge=none`` means no resize.

    Raises:
        OptionError: A setting is unknown, given twice or has no usable value; all of them are listed.
    """
    found: dict[str, object] = {}
    problems = []
    for item in text.split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name not in _SETTINGS:
            problems.append(f"{item.strip()!r}: expected NAME=VALUE with a NAME of {', '.join(_SETTINGS)}")
            continue
        field, read = _SETTINGS[name]
        if field in found:
            problems.append(f"{name} is given twice")
        try:
            found[field] = read(value.strip())
        except ValueError:
            problems.append(f"{name}: {value!r} cannot be read")
    if problems:
        raise OptionError("--preprocess cannot be read.", details=problems, remedy=f"Example: {EXAMPLE}")
    return dataclasses.replace(PreprocessingChanges(), **found)  # type: ignore[arg-type]  # by field name
