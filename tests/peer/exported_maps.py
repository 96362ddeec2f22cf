"""Maps of an exported graph beside those of mmpretrain's backbone, as a detector takes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import OutputForm
from riformer_deploy.evaluation.results import Status
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.variants import Variant

INDICES = (0, 2, 4, 6)


def compare_maps(
    build: Callable[..., Any], fill: Callable[[str, tuple[int, ...], int], Any], variant: Variant
) -> dict[str, float]:
    """Largest difference of each map, relative to the largest value expected.

    Args:
        build: Builds the variant's backbone in mmpretrain with these settings beside its own.
        fill: Golden weights by key, shape and seed.
        variant: What to export.
    """
    shapes = variant.architecture.shapes(Form.TRAINING, INDICES)
    state = {key: torch.from_numpy(fill(key, shape, 0)) for key, shape in shapes.items()}
    side = variant.image_size_px
    images = np.random.Generator(np.random.PCG64(side)).standard_normal((2, 3, side, side)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, bundle = Path(folder) / "maps.pth", Path(folder) / "bundle"
        torch.save({"state_dict": state}, source)
        lowering = LoweringConfig(output_form=OutputForm.MAPS, out_indices=INDICES)
        report = export_checkpoint(
            ExportOptions(checkpoint=source, output=bundle, variant=variant, lowerings=(lowering,))
        )
        if report.status is not Status.PASSED:
            raise SystemExit(f"parity of {variant.name}'s maps failed")
        ours = OnnxRuntime(bundle / "model.fp32.onnx").run(images)
        fused = torch.load(bundle / "deploy.pth", weights_only=True)["state_dict"]
    apart = {}
    for form, weights, deploy in (("training", state, False), ("deploy", fused, True)):
        theirs = build(out_indices=list(INDICES), deploy=deploy).eval()
        theirs.load_state_dict(
            {k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone.")},
            strict=True,
        )
        with torch.inference_mode():
            expected = theirs(torch.from_numpy(images))
        for (name, got), true in zip(ours.items(), expected, strict=True):
            distance = float(np.abs(got - true.numpy()).max() / true.abs().max())
            apart[f"{name}, {form} form"] = distance
    return apart
