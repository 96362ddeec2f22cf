"""The lines that mmpretrain documents for RIFormer, run in both packages on the same weights and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import riformer_deploy
from riformer_deploy.checkpoints.config_files import published_config, read_config

NAME = "riformer-s12_in1k"
Values = dict[str, NDArray[Any]]


def _lines(package: Any, checkpoint: str, picture: str) -> tuple[Values, list[Any]]:
    """Every number that the lines give, and every answer that is no number."""
    model = package.get_model(NAME, pretrained=checkpoint)
    before = package.inference_model(model, picture)
    array = package.inference_model(model, _bgr(picture))
    model.backbone.switch_to_deploy()
    after = package.inference_model(model, picture)

    model = package.get_model(NAME, pretrained=checkpoint, device="cpu")
    model.eval()
    inputs = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    inputs = inputs.to(model.data_preprocessor.device)
    with torch.inference_mode():
        out = model(inputs)
        outs = model.extract_feat(inputs)
        maps = model.extract_feat(inputs, stage="backbone")
        pooled = model.extract_feat(inputs, stage="pre_logits")
        model.backbone.switch_to_deploy()
        fused = model(inputs)
        pixels = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
        normalised = model.data_preprocessor({"inputs": pixels})["inputs"]
    assert torch.allclose(out, fused, rtol=1e-4, atol=1e-5)  # a documented line
    values = {
        **{f"pred_score{name}": np.array(r["pred_score"]) for name, r in _named(before, after, array)},
        **{f"pred_scores{name}": r["pred_scores"] for name, r in _named(before, after, array)},
        "feature": outs[0].numpy(),
        "feature map": maps[0].numpy(),
        "feature before the logits": pooled.numpy(),
        "logits": out.numpy(),
        "logits, fused": fused.numpy(),
        "preprocessor's output": normalised.numpy(),
    }
    answers = [
        [(r["pred_label"], r["pred_class"]) for _, r in _named(before, after, array)],
        [tuple(value.shape) for value in (out, *outs, *maps, fused)],
        (type(outs), type(maps), len(outs)),
        str(model.data_preprocessor.device),
        sorted(model.state_dict()),
        package.list_models("riformer*"),
    ]
    return values, answers


def _named(before: Any, after: Any, array: Any) -> list[tuple[str, Any]]:
    return [("", before), (", fused", after), (", of an array", array)]


def _bgr(picture: str) -> NDArray[np.uint8]:
    import cv2  # noqa: PLC0415  # in the peer's environment alone

    read: NDArray[np.uint8] = np.asarray(cv2.imread(picture), np.uint8)
    return read


def _stages(theirs: Any, ours: Any) -> float:
    """Largest difference of the maps of all stages, through norms of the same random weights."""
    chance = torch.Generator().manual_seed(1)
    state = {
        key: torch.randn(value.shape, generator=chance) * 0.1 + ("weight" in key)
        for key, value in theirs.backbone.state_dict().items()
    }
    theirs.backbone.load_state_dict(state, strict=True)
    ours.backbone.load_state_dict(state, strict=True)
    inputs = torch.rand(1, 3, 64, 96, generator=chance)
    with torch.inference_mode():
        pairs = zip(theirs.backbone(inputs), ours.backbone(inputs), strict=True)
        return max(_apart(a.numpy(), b.numpy()) for a, b in pairs)


def _apart(expected: NDArray[Any], got: NDArray[Any]) -> float:
    return float(np.abs(expected.astype(np.float64) - got).max())


def compare_documented(mmpretrain: ModuleType, checkpoint: Path, picture: Path) -> dict[str, float]:
    """Largest differences of every value; raises where an answer that is no number differs.

    Args:
        mmpretrain: The peer.
        checkpoint: Weights of S12, with 1000 classes.
        picture: Any picture.
    """
    theirs, their_answers = _lines(mmpretrain, str(checkpoint), str(picture))
    ours, our_answers = _lines(riformer_deploy, str(checkpoint), str(picture))
    for expected, got in zip(their_answers, our_answers, strict=True):
        if expected != got:
            raise AssertionError(f"mmpretrain answers {expected}, this toolkit {got}")
    found = {name: _apart(values, ours[name]) for name, values in theirs.items()}
    found["maps of four stages"] = _stages(
        mmpretrain.get_model(NAME, backbone={"out_indices": [0, 2, 4, 6]}),
        riformer_deploy.get_model(NAME, out_indices=(0, 2, 4, 6)),
    )
    return found


def configs_read_otherwise(config_type: Any, files: Sequence[Path]) -> list[str]:
    """Where configs say something else here than mmengine reads, or their names stand for something else.

    Args:
        config_type: mmengine's ``Config``.
        files: mmpretrain's configs of RIFormer.
    """
    otherwise = []
    for path in files:
        expected = _plain(config_type.fromfile(str(path)).to_dict())
        found, known = read_config(path).names, published_config(path.stem) or {}
        otherwise += [
            f"{path.name}: {name}"
            for name in ("model", "data_preprocessor", "test_pipeline", "test_dataloader")
            if found[name] != expected[name]
        ]
        otherwise += [
            f"{path.name}, by its name: {name}"
            for name in ("data_preprocessor", "test_pipeline", "default_scope")
            if known.get(name) != expected[name]
        ]
    return otherwise


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
