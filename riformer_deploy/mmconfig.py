"""Reads the preprocessing out of the config text that mmengine stores in ``meta['cfg']``.

The text is Python; it is parsed with :mod:`ast` and only literals are evaluated, never executed.
"""

from __future__ import annotations

import ast
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


def _triple(value: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value):
        return (float(value[0]), float(value[1]), float(value[2]))
    return default


def preprocessing_of(text: str) -> Preprocessing | None:
    """The test pipeline that a config describes.

    Args:
        text: Content of ``meta['cfg']``.

    Returns:
        Short edge, centre crop and normalisation, or None where the text has no test pipeline
        with a fixed crop, or is not Python.
    """
    known = _settings(text)
    pipeline = known.get("test_pipeline")
    if not isinstance(pipeline, list):
        return None
    short_edge: int | None = None
    crop: tuple[int, int] | None = None
    interpolation = "bicubic"
    for step in pipeline:
        match step:
            case {"type": "ResizeEdge", "scale": int() as scale}:
                short_edge, interpolation = scale, str(step.get("interpolation", "bilinear"))
            case {"type": "CenterCrop", "crop_size": int() as side}:
                crop = (side, side)
            case {"type": "CenterCrop", "crop_size": [int() as width, int() as height]}:
                crop = (height, width)
            case _:  # steps that do not change the geometry
                continue
    if crop is None:
        return None
    normalise = known.get("data_preprocessor")
    normalise = normalise if isinstance(normalise, dict) else {"to_rgb": True}
    try:
        return Preprocessing(
            resize_short_edge_px=short_edge,
            crop_px=crop,
            interpolation=interpolation,
            mean=_triple(normalise.get("mean"), IMAGENET_MEAN),
            std=_triple(normalise.get("std"), IMAGENET_STD),
            channel_order="RGB" if normalise.get("to_rgb", False) else "BGR",
            source="checkpoint",
        )
    except ValueError:  # settings that nothing of ours can follow, such as OpenCV's "area"
        return None


_KNOWN_STEPS = {"LoadImageFromFile", "ResizeEdge", "CenterCrop", "PackInputs"}
_LOADING = {"type", "backend_args", "file_client_args"}  # where files lie, not how they are decoded


def _remark(step: dict[str, Any]) -> str | None:
    """What is done differently here than the step says, if anything."""
    remark = None
    match step:
        case {"type": "ResizeEdge", "edge": str() as edge} if edge != "short":
            remark = f"it resizes the {edge} edge; here the short one is resized"
        case {"type": "ResizeEdge"} if step.get("backend") != "pillow":
            remark = (
                "it resizes with OpenCV, which shrinks unsmoothed; here Pillow resizes, and scores differ"
            )
        case {"type": "CenterCrop", "auto_pad": True}:
            remark = "it pads pictures that are smaller than the crop; here they are refused"
        case {"type": "LoadImageFromFile"} if not _LOADING.issuperset(step):
            settings = ", ".join(f"{name}={value!r}" for name, value in step.items() if name not in _LOADING)
            remark = f"it decodes with {settings}; here it is not"
        case {"type": str() as kind} if kind not in _KNOWN_STEPS:
            remark = f"it has the step {kind}, which is not done here"
        case _:
            pass
    return remark


def remarks_on(text: str) -> tuple[str, ...]:
    """Where a config's test pipeline does something that :func:`preprocessing_of` cannot carry over.

    Args:
        text: Content of ``meta['cfg']``.
    """
    pipeline = _settings(text).get("test_pipeline")
    steps = [step for step in pipeline if isinstance(step, dict)] if isinstance(pipeline, list) else []
    return tuple(remark for remark in map(_remark, steps) if remark is not None)
