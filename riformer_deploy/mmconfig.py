"""Reads the preprocessing out of the config text that mmengine stores in ``meta['cfg']``.

The text is Python; it is parsed with :mod:`ast` and only literals are evaluated, never executed.
"""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from riformer_deploy.variants import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """The literal that an expression spells, ``dict(...)`` calls included; None where it is none."""
    value: Any = None
    match node:
        case ast.Constant():
            value = node.value
        case ast.List() | ast.Tuple():
            value = [_value(item, known) for item in node.elts]
        case ast.Dict():
            value = {
                key.value: _value(item, known)
                for key, item in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        case ast.Call(func=ast.Name(id="dict")):
            value = {word.arg: _value(word.value, known) for word in node.keywords if word.arg}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            value = -number
        case ast.Name():
            value = known.get(node.id)
        case _:  # calls and arithmetic are not evaluated
            pass
    return value


def _assignments(text: str) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known[name] = _value(value, known)
            case _:  # imports and conditions carry no settings
                continue
    return known


def _settings(text: str) -> dict[str, Any]:
    """The assignments of a config; none where the text is not Python."""
    try:
        return _assignments(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _triple(value: Any, default: tuple[float, float, float]) -> tuple[float, float, float] | None:
    """Three numbers; the default where nothing is said, None where something is that cannot be read."""
    if value is None:
        return default
    if isinstance(value, list) and len(value) == 3 and all(type(item) in (int, float) for item in value):
        return (float(value[0]), float(value[1]), float(value[2]))
    return None


def _normalisation(known: dict[str, Any]) -> dict[str, Any]:
    """A model's own ``data_preprocessor`` goes before the config's, as in mmengine's runner."""
    model = known.get("model")
    own = model.get("data_preprocessor") if isinstance(model, dict) else None
    found = own if own is not None else known.get("data_preprocessor", {"to_rgb": True})
    return found if isinstance(found, dict) else {"mean": found, "std": found}


@dataclasses.dataclass
class _Geometry:
    """What the steps of a pipeline add up to; ``strange`` names those that are not understood."""

    short_edge_px: int | None = None
    interpolation: str = "bicubic"
    crop_px: tuple[int, int] | None = None
    strange: list[str] = dataclasses.field(default_factory=list)


def _geometry(pipeline: list[Any]) -> _Geometry:
    found = _Geometry()
    for step in pipeline:
        match step:
            case {"type": "ResizeEdge", "scale": int() as scale} if (
                step.get("edge", "short") == "short" and scale is not True
            ):
                found.short_edge_px = scale
                found.interpolation = str(step.get("interpolation", "bilinear"))
            case {"type": "CenterCrop", "crop_size": int() as side}:
                found.crop_px = (side, side)
            case {"type": "CenterCrop", "crop_size": [int() as width, int() as height]}:
                found.crop_px = (height, width)
            case {"type": "LoadImageFromFile" | "PackInputs"}:
                continue
            case {"type": str() as kind}:
                found.strange.append(kind)
            case _:
                found.strange.append("without a type")
    return found


def preprocessing_of(text: str) -> Preprocessing | None:
    """The test pipeline that a config describes.

    Args:
        text: Content of ``meta['cfg']``.

    Returns:
        Short edge, centre crop and normalisation, or None where the text is not Python, has no test
        pipeline with a fixed crop, or has one with a step or value that is not understood.
    """
    known = _settings(text)
    pipeline = known.get("test_pipeline")
    if not isinstance(pipeline, list):
        return None
    geometry, normalise = _geometry(pipeline), _normalisation(known)
    mean = _triple(normalise.get("mean"), IMAGENET_MEAN)
    std = _triple(normalise.get("std"), IMAGENET_STD)
    if geometry.crop_px is None or geometry.strange or mean is None or std is None:
        return None
    try:
        return Preprocessing(
            resize_short_edge_px=geometry.short_edge_px,
            crop_px=geometry.crop_px,
            interpolation=geometry.interpolation,
            mean=mean,
            std=std,
            channel_order="RGB" if normalise.get("to_rgb", False) else "BGR",
            source="checkpoint",
        )
    except ValueError:  # settings that nothing of ours can follow, such as OpenCV's "area"
        return None


_LOADING = {"type", "backend_args", "file_client_args"}  # where files lie, not how they are decoded


def _remark(step: dict[str, Any]) -> str | None:
    """What is done differently here than the step says, if anything."""
    remark = None
    match step:
        case {"type": "ResizeEdge"} if step.get("backend") != "pillow":
            remark = (
                "it resizes with OpenCV, which shrinks unsmoothed; here Pillow resizes, and scores differ"
            )
        case {"type": "CenterCrop", "auto_pad": True}:
            remark = "it pads pictures that are smaller than the crop; here they are refused"
        case {"type": "LoadImageFromFile"} if not _LOADING.issuperset(step):
            settings = ", ".join(f"{name}={value!r}" for name, value in step.items() if name not in _LOADING)
            remark = f"it decodes with {settings}; here it is not"
        case _:
            pass
    return remark


def remarks_on(text: str) -> tuple[str, ...]:
    """What the user should know of a config's test pipeline: what of it is not carried over.

    Args:
        text: Content of ``meta['cfg']``.
    """
    pipeline = _settings(text).get("test_pipeline")
    if not isinstance(pipeline, list):
        return ()
    if preprocessing_of(text) is None:
        strange = ", ".join(_geometry(pipeline).strange) or "a value in it"
        return (f"it is not used, since it cannot be understood as a whole ({strange})",)
    steps = [step for step in pipeline if isinstance(step, dict)]
    return tuple(remark for remark in map(_remark, steps) if remark is not None)
