from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import GateError
from riformer_deploy.common.progress import silent
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.accuracy_control import calibrate_for, restore_accuracy
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, measure
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import resolve_lowering
from riformer_deploy.quantization.sensitivity import Gate

INT8_RESIDUAL = LoweringConfig(precision=Precision.INT8, quantize_residual=True)
FP8 = LoweringConfig(precision=Precision.FP8)


def _record(model: RIFormer) -> ModelRecord:
    return ModelRecord(
        variant=None,
        architecture=model.architecture,
        preprocessing=Preprocessing(resize_short_edge_px=None, crop_px=(32, 32)),
        class_names=None,
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        (INT8_RESIDUAL, "Leave out --quantize-residual"),
        # beside int8, which alone heeds the option
        (dataclasses.replace(INT8_RESIDUAL, precision=Precision.FP8), "fp16 itself is not as close"),
        (FP8, "fp16 itself is not as close"),
    ],
)
def test_a_gate_that_cannot_be_held_names_what_is_in_the_way(
    tiny_model: RIFormer, config: LoweringConfig, remedy: str
) -> None:
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).numpy()
    images = CalibrationSet(
        source="",
        random=False,
        count=2,
        content_sha256="",
        warnings=(),
        batches=lambda: iter([batch]),
    )
    folded = fold(tiny_model)
    measured = measure(
        Observations(folded, images), "key", CalibrationConfig(residual=config.quantize_residual)
    )
    result, gate = CalibrationResult(images=images, calibration=measured), Gate(min_sqnr_db=190)
    with pytest.raises(GateError, match="even with every layer excluded") as caught:
        restore_accuracy(folded, tiny_model, _record(tiny_model), result, config, gate, silent)
    assert remedy in caught.value.remedy
    assert ("itself is not as close" in caught.value.remedy) == ("itself is not as close" in remedy)


def test_norms_in_half_are_calibrated_for_what_they_store(
    tiny_model: RIFormer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One channel is far above the rest: weight times norm is 40000 there, and the bias takes 30000 back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folded, block = fold(tiny_model), "backbone.network.4.1"
    norm = folded.get_submodule(f"{block}.norm_reparam")
    folded.get_parameter("backbone.network.4.0.mlp.fc2.bias")[0] = 100.0
    norm.get_parameter("weight")[0], norm.get_parameter("bias")[0] = 8500.0, -30000.0
    held = {}
    for norm_io in (Precision.FP32, Precision.FP16):
        config = LoweringConfig(precision=Precision.FP16, norm_io=norm_io)
        result, _ = calibrate_for(
            folded, "weights", _record(tiny_model), [config], CalibrationSource(), silent
        )
        held[norm_io] = resolve_lowering(config, result).float32_blocks
    assert held == {Precision.FP32: (), Precision.FP16: (block,)}
