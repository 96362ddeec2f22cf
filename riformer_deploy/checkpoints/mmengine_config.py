"""Holds the config text that mmengine stores in ``meta['cfg']`` against the tensors and what is computed."""

from __future__ import annotations

from typing import Any

from riformer_deploy.checkpoints.allowlists import is_number, refusals, shown
from riformer_deploy.checkpoints.config_text import assignments, too_long
from riformer_deploy.checkpoints.model_settings import MODEL, preprocessor_settings
from riformer_deploy.checkpoints.stored_pipeline import crop_of
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.variants import ARCHITECTURES


def contradictions(text: str, architecture: Architecture) -> list[str]:
    """Where a stored config describes another network than the tensors do.

    Args:
        text: Content of ``meta['cfg']``.
        architecture: Recognised from the tensors.

    Returns:
        A sentence for each; empty where the text says nothing of the network, or is not Python.
    """
    model = assignments(text).get("model")
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
        A sentence for each, or on the text where it is too long; empty where it stores no model or is not Python.
    """
    if (why := too_long(text)) is not None:
        return [why]
    known = assignments(text)
    model = known.get("model")
    if model is None:
        return []
    scope = known.get("default_scope")
    problems = refusals(model, MODEL, name="model", scope=scope)
    own = isinstance(model, dict) and model.get("data_preprocessor") is not None
    stored = model["data_preprocessor"] if own else known.get("data_preprocessor")
    if stored is not None:
        table = preprocessor_settings(stored, crop_of(known))
        name = "model.data_preprocessor" if own else "data_preprocessor"
        problems += refusals(stored, table, name=name, scope=scope)
    return problems
