"""Reads the preprocessing out of the config text that mmengine stores in ``meta['cfg']``.

The text is Python; it is parsed with :mod:`ast` and only literals are evaluated, never executed.
"""

from __future__ import annotations

import ast
import math
from typing import Any

from riformer_deploy.architecture import Architecture
from riformer_deploy.variants import ARCHITECTURES, Preprocessing


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


def _triple(value: Any, *, positive: bool) -> tuple[float, float, float] | None:
    if isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) for v in value):
        found = (float(value[0]), float(value[1]), float(value[2]))
        if all(math.isfinite(v) and (v > 0 or not positive) for v in found):
            return found
    return None


def _geometry(pipeline: list[Any]) -> tuple[int | None, str, tuple[int, int]] | None:
    """Short edge, interpolation and crop; None where a step is not one that this toolkit knows."""
    short_edge: int | None = None
    crop: tuple[int, int] | None = None
    interpolation = "bicubic"
    for step in pipeline:
        match step:
            case {"type": "ResizeEdge", "scale": int() as scale} if (
                scale is not True and scale > 0 and step.get("edge", "short") == "short"
            ):
                short_edge, interpolation = scale, str(step.get("interpolation", "bilinear"))
            case {"type": "CenterCrop", "crop_size": int() as side} if side is not True and side > 0:
                crop = (side, side)
            case {"type": "CenterCrop", "crop_size": [int() as width, int() as height]} if (
                min(width, height) > 0
            ):
                crop = (height, width)
            case {"type": "LoadImageFromFile" | "PackInputs"}:  # these do not change the geometry
                continue
            case _:
                return None
    return (short_edge, interpolation, crop) if crop is not None else None


def _test_pipeline(known: dict[str, Any]) -> list[Any] | None:
    """What mmengine runs: the test dataloader's pipeline; the variable that it was made of may be stale."""
    loader = known.get("test_dataloader")
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    used = dataset.get("pipeline") if isinstance(dataset, dict) else None
    pipeline = known.get("test_pipeline") if used is None else used
    return pipeline if isinstance(pipeline, list) else None


def _normalisation(known: dict[str, Any]) -> dict[str, Any] | None:
    """The preprocessor's settings; mmengine lets the model's own go before the top level's."""
    model = known.get("model")
    found = model.get("data_preprocessor") if isinstance(model, dict) else None
    if found is None:
        found = known.get("data_preprocessor")
    return found if isinstance(found, dict) else None


def contradictions(text: str, architecture: Architecture) -> list[str]:
    """Where a stored config describes another network than the tensors do.

    Args:
        text: Content of ``meta['cfg']``.
        architecture: Recognised from the tensors.

    Returns:
        A sentence for each; empty where the text says nothing of the network, or is not Python.
    """
    try:
        model = _assignments(text).get("model")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    backbone = model.get("backbone") if isinstance(model, dict) else None
    head = model.get("head") if isinstance(model, dict) else None
    arch = backbone.get("arch") if isinstance(backbone, dict) else None
    if isinstance(arch, str) and arch.lower() in ARCHITECTURES:
        known = ARCHITECTURES[arch.lower()]
        arch = {"layers": list(known.layers), "embed_dims": list(known.embed_dims)}
    described: list[tuple[str, Any, Any]] = [
        (name, arch.get(name), list(getattr(architecture, name)))
        for name in ("layers", "embed_dims")
        if isinstance(arch, dict)
    ]
    if isinstance(head, dict):
        described.append(("num_classes", head.get("num_classes"), architecture.num_classes))
    return [
        f"{name}: the tensors say {found}, the stored config {said}"
        for name, said, found in described
        if said is not None and said != found
    ]


def preprocessing_of(text: str) -> Preprocessing | None:
    """The test pipeline that a config describes.

    Args:
        text: Content of ``meta['cfg']``.

    Returns:
        Short edge, centre crop and normalisation, or None where the text has no test pipeline
        with a fixed crop, or is not Python.
    """
    try:
        known = _assignments(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    pipeline = _test_pipeline(known)
    if pipeline is None:
        return None
    geometry, normalise = _geometry(pipeline), _normalisation(known)
    if geometry is None or normalise is None:
        return None
    mean = _triple(normalise.get("mean"), positive=False)
    std = _triple(normalise.get("std"), positive=True)
    if mean is None or std is None:
        return None
    short_edge, interpolation, crop = geometry
    return Preprocessing(
        resize_short_edge_px=short_edge,
        crop_px=crop,
        interpolation=interpolation,
        mean=mean,
        std=std,
        channel_order="RGB" if normalise.get("to_rgb", False) else "BGR",
        source="checkpoint",
    )
