from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import NormForm, Precision, ResidualForm
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.lowering import LoweredRIFormer, lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.export.quantized_layers import fitting_scale
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, measure
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import resolve_lowering

_SIZE = (32, 32)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)


@pytest.fixture
def folded(tiny_model: RIFormer) -> RIFormer:
    return fold(tiny_model)


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(4, 3, *_SIZE, generator=torch.Generator().manual_seed(1))


def _lowered(
    folded: RIFormer, batch: Tensor, *blocks: str, norm: NormForm = NormForm.INSTANCE
) -> LoweredRIFormer:
    """With the results of additions in int8."""
    images = CalibrationSet(
        source="a", random=False, count=len(batch), content_sha256="", warnings=(),
        batches=lambda: iter([batch.numpy()]),
    )  # fmt: skip
    measured = measure(Observations(folded, images), "key", CalibrationConfig(residual=True))
    config = LoweringConfig(
        precision=Precision.INT8,
        norm=norm,
        quantize_residual=True,
        residual_form=ResidualForm.RESULTS,
        residual_blocks=blocks,
    )
    resolved = resolve_lowering(config, CalibrationResult(images=images, calibration=measured))
    return lower(folded, resolved, _PREPROCESSING)


def _results(model: LoweredRIFormer, batch: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """What modules of these names give."""
    seen: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, result, name=name: seen.setdefault(name, result)
        )
        for name in names
    ]
    model(batch)
    for handle in handles:
        handle.remove()
    return seen


def _on_grid(values: Tensor, largest: float) -> bool:
    """Whether they are at most 256 even steps, of which 127 reach the range."""
    steps = values / fitting_scale(torch.tensor(largest), torch.float32)
    return bool(torch.allclose(steps, steps.round(), atol=1e-4)) and bool((steps.abs() <= 128.001).all())


@pytest.mark.parametrize("norm", NormForm)
@pytest.mark.untraced
def test_the_whole_stream_is_on_the_grid_of_int8(folded: RIFormer, batch: Tensor, norm: NormForm) -> None:
    model = _lowered(folded, batch, norm=norm)
    blocks = tuple(name for stage in folded.architecture.block_names for name in stage)
    embeddings = ("backbone.patch_embed", *(f"backbone.network.{at}" for at in (1, 3, 5)))
    ranges = model.config.residual_ranges
    for name, result in _results(model, batch, (*blocks, *embeddings)).items():
        assert _on_grid(result, ranges[f"{name}.result"]), name
    for name in blocks:
        norm2_input = ranges[f"{name}.stream"]
        assert _on_grid(_results(model, batch, (f"{name}.stream",))[f"{name}.stream"], norm2_input), name
    assert len(ranges) == 2 * len(blocks) + len(embeddings)


@pytest.mark.untraced
def test_other_blocks_stay_in_floating_point(folded: RIFormer, batch: Tensor) -> None:
    model = _lowered(folded, batch, "backbone.network.0")
    whole = _lowered(folded, batch).config.residual_ranges
    seen = _results(model, batch, ("backbone.network.0.0", "backbone.network.4.1", "backbone.network.3"))
    assert _on_grid(seen["backbone.network.0.0"], whole["backbone.network.0.0.result"])
    for name in ("backbone.network.4.1", "backbone.network.3"):
        assert not _on_grid(seen[name], whole[f"{name}.result"]), name


def test_the_graph_computes_what_the_module_does(folded: RIFormer, batch: Tensor, tmp_path: Path) -> None:
    model, path = _lowered(folded, batch), tmp_path / "model.onnx"
    export_onnx(model, path, OnnxOptions(image_size_px=_SIZE, batch=len(batch)), {})
    expected = model(batch)
    assert isinstance(expected, Tensor)
    found = OnnxRuntime(path).run(batch.numpy())["logits"]
    # A value at the edge of a step may fall on its other side.
    assert np.linalg.norm(found - expected.numpy()) <= 2e-2 * np.linalg.norm(expected.numpy())
