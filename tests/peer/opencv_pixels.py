"""Pixels of pipelines that resize with OpenCV, mmcv's default: ours beside mmpretrain's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riformer_deploy.checkpoints.stored_pipeline import preprocessing_of
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.preprocessing import FILTERS, ResizeBackend
from riformer_deploy.data.transforms import fit, normalize

_CONFIG = """data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [dict(type='LoadImageFromFile'), {steps}, dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def _pipelines() -> dict[str, str]:
    """Steps of a config: every filter after the short edge and to a fixed size, and the defaults of both."""
    crop = "dict(type='CenterCrop', crop_size=224)"
    found = {
        "ResizeEdge, defaults": f"dict(type='ResizeEdge', scale=248, edge='short'), {crop}",
        "Resize, defaults": "dict(type='Resize', scale=(224, 224))",
    }
    for filter_name in FILTERS[ResizeBackend.OPENCV]:
        how = f"interpolation='{filter_name}', backend='cv2'"
        found[f"ResizeEdge, {filter_name}"] = (
            f"dict(type='ResizeEdge', scale=248, edge='short', {how}), {crop}"
        )
        found[f"Resize, {filter_name}"] = f"dict(type='Resize', scale=(260, 230), {how}), {crop}"
    return found


def compare_opencv(
    files: Sequence[Path],
    read: Callable[[str], Any],
    pipeline_of: Callable[[Sequence[Any]], Callable[[dict[str, Any]], Any]],
    preprocessor: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, float]:
    """Largest difference of pixels by pipeline, and of the normalised input.

    Args:
        files: Pictures.
        read: mmcv's ``imread``: (H, W, 3) uint8, BGR.
        pipeline_of: Makes mmpretrain's transforms of a config's steps.
        preprocessor: mmpretrain's, of ImageNet's mean and deviation.
    """
    worst: dict[str, float] = {"network's input": 0.0}
    for name, steps in _pipelines().items():
        text = _CONFIG.format(steps=steps)
        ours = preprocessing_of(text)
        assert ours is not None
        assert ours.resize_backend is ResizeBackend.OPENCV
        settings: dict[str, Any] = {}
        exec(text, {}, settings)  # noqa: S102  # the text above
        theirs = pipeline_of(
            [step for step in settings["test_pipeline"] if step["type"] != "LoadImageFromFile"]
        )
        for path in files:
            picture = read(str(path))
            packed = theirs({"img": picture, "img_shape": picture.shape[:2], "ori_shape": picture.shape[:2]})
            expected = packed["inputs"].numpy().transpose(1, 2, 0)[..., ::-1]
            found = fit(decode_image(path), ours)
            assert found.shape == expected.shape, name
            worst[name] = max(worst.get(name, 0.0), float(np.abs(expected.astype(int) - found).max()))
            network = preprocessor({"inputs": packed["inputs"][None]})["inputs"].numpy()
            apart = float(np.abs(network - normalize([found], ours)).max())
            worst["network's input"] = max(worst["network's input"], apart)
    return worst
