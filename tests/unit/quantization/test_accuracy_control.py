from __future__ import annotations

from pathlib import Path

import pytest
import torch

from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import GateError
from riformer_deploy.common.progress import silent
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.config import PrecisionOptions
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.accuracy_control import calibrate_for, restore_accuracy
from riformer_deploy.quantization.calibration import CalibrationConfig, measure
from riformer_deploy.quantization.planning import resolve_lowering
from riformer_deploy.quantization.sensitivity import Gate

RESIDUAL = PrecisionOptions(quantize_residual=True)


def _record(model: RIFormer) -> ModelRecord:
    return ModelRecord(
        variant=None,
        architecture=model.architecture,
        preprocessing=Preprocessing(resize_short_edge_px=None, crop_px=(32, 32)),
        class_names=None,
    )


@pytest.mark.parametrize(
    ("precision", "options", "remedy"),
    [
        (Precision.INT8, RESIDUAL, "Leave out --quantize-residual"),
        (Precision.FP8, RESIDUAL, "fp16 itself is not as close"),  # beside int8, which alone heeds the option
        (Precision.FP8, PrecisionOptions(), "fp16 itself is not as close"),
    ],
)
def test_a_gate_that_cannot_be_held_names_what_is_in_the_way(
    tiny_model: RIFormer, precision: Precision, options: PrecisionOptions, remedy: str
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
    calibration = measure(folded, images, "key", CalibrationConfig(residual=options.quantize_residual))
    measured, gate = (images, calibration), Gate(min_sqnr_db=190)
    with pytest.raises(GateError, match="even with every layer excluded") as caught:
        restore_accuracy(folded, tiny_model, _record(tiny_model), measured, precision, options, gate, silent)
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
        options = PrecisionOptions(norm_io=norm_io)
        measured, _ = calibrate_for(
            folded, "weights", _record(tiny_model), (Precision.FP16,), options, CalibrationSource(), silent
        )
        assert measured is not None
        held[norm_io] = resolve_lowering(Precision.FP16, options, measured[1]).float32_blocks
    assert held == {Precision.FP32: frozenset(), Precision.FP16: {block}}
