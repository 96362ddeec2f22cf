"""Reads the preprocessing out of the config text that mmengine stores in ``meta['cfg']``.

The text is Python; it is parsed with :mod:`ast` and only literals are evaluated, never executed.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from riformer_deploy.checkpoints.allowlists import is_number, refusals, shown
from riformer_deploy.checkpoints.model_settings import MODEL, preprocessor_settings
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.variants import ARCHITECTURES


@dataclass(frozen=True)
class _Unread:
    """A value that is no literal: it is not evaluated, and must not be taken for one that was not stored."""

    def __repr__(self) -> str:
        return "an expression that is not evaluated"


_UNREAD = _Unread()


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """The literal that an expression spells, ``dict(...)`` calls included; ``_UNREAD`` where it is none."""
    value: Any = _UNREAD
    match node:
        case ast.Constant():
            value = node.value
        case ast.List() | ast.Tuple():
            value = [_value(item, known) for item in node.elts]
        case ast.Dict() if all(isinstance(key, ast.Constant) for key in node.keys):
            value = {
                key.value: _value(item, known)
                for key, item in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        case ast.Call(func=ast.Name(id="dict"), args=[]) if all(word.arg for word in node.keywords):
            value = {word.arg: _value(word.value, known) for word in node.keywords}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            value = -number
        case ast.Name():
            value = known.get(node.id, _UNREAD)
        case _:  # calls and arithmetic are not evaluated
            pass
    return value


def _assignments(text: str) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known[name] = _value(value, known)
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                continue
            case _:  # a condition, a call, an assignment to an item: what it touches is no longer known
                touched = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
                for node in touched:
                    if node.id in known or isinstance(node.ctx, ast.Store):
                        known[node.id] = _UNREAD
    return known


def _triple(value: Any, *, positive: bool) -> tuple[float, float, float] | None:
    if isinstance(value, list) and len(value) == 3 and all(map(is_number, value)):
        found = (float(value[0]), float(value[1]), float(value[2]))
        if not positive or min(found) > 0:
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
        # every published shape has mmpretrain's default ratios
        arch = {"layers": list(known.layers), "embed_dims": list(known.embed_dims), "mlp_ratios": [4] * 4}
    described: list[tuple[str, Any, Any]] = []
    if isinstance(arch, dict):
        described += [
            (name, arch.get(name), list(getattr(architecture, name))) for name in ("layers", "embed_dims")
        ]
        hidden = _hidden_dims(arch.get("mlp_ratios"), architecture)
        described.append(("mlp_ratios, as hidden widths", hidden, list(architecture.hidden_dims)))
    if isinstance(head, dict):
        described += [
            ("in_channels of the head", head.get("in_channels"), architecture.embed_dims[-1]),
            ("num_classes", head.get("num_classes"), architecture.num_classes),
        ]
    return [
        f"{name}: the tensors say {found}, the stored config {shown(said)}"
        for name, said, found in described
        if said is not None and said != found
    ]


def _hidden_dims(ratios: Any, architecture: Architecture) -> Any:
    """Widths between the convolutions of the MLPs, as mmpretrain makes them of ratios; else the ratios."""
    if not isinstance(ratios, list) or not all(map(is_number, ratios)):
        return ratios
    return [int(dim * ratio) for dim, ratio in zip(architecture.embed_dims, ratios, strict=False)]


def refused_settings(text: str) -> list[str]:
    """Settings of a stored config with which mmpretrain computes another function than this toolkit.

    Args:
        text: Content of ``meta['cfg']``.

    Returns:
        A sentence for each; empty where the text stores no model, or is not Python.
    """
    try:
        known = _assignments(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    model = known.get("model")
    if model is None:
        return []
    scope = known.get("default_scope")
    problems = refusals(model, MODEL, name="model", scope=scope)
    own = isinstance(model, dict) and model.get("data_preprocessor") is not None
    stored = model["data_preprocessor"] if own else known.get("data_preprocessor")
    if stored is not None:
        geometry = _geometry(_test_pipeline(known) or [])
        table = preprocessor_settings(stored, None if geometry is None else geometry[2])
        name = "model.data_preprocessor" if own else "data_preprocessor"
        problems += refusals(stored, table, name=name, scope=scope)
    return problems


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
    to_rgb = normalise.get("to_rgb", False)
    if normalise.get("mean") is None:  # without one, mmpretrain's preprocessor does not normalise
        normalise = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    mean = _triple(normalise["mean"], positive=False)
    std = _triple(normalise.get("std"), positive=True)
    if mean is None or std is None or to_rgb not in (True, False):
        return None
    short_edge, interpolation, crop = geometry
    try:
        return Preprocessing(
            resize_short_edge_px=short_edge,
            crop_px=crop,
            interpolation=interpolation,
            mean=mean,
            std=std,
            channel_order="RGB" if to_rgb else "BGR",
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
    """What of a test pipeline is not done here exactly, where :func:`preprocessing_of` understands it.

    Args:
        text: Content of ``meta['cfg']``.
    """
    if preprocessing_of(text) is None:
        return ()
    steps = [step for step in _test_pipeline(_assignments(text)) or () if isinstance(step, dict)]
    return tuple(remark for remark in map(_remark, steps) if remark is not None)
