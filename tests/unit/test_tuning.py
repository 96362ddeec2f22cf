from __future__ import annotations

import pytest
import torch

from riformer_deploy.calibration import Wish, measure
from riformer_deploy.calibration_sets import CalibrationSet
from riformer_deploy.choices import Precision
from riformer_deploy.errors import GateError
from riformer_deploy.fusion import fold
from riformer_deploy.manifests import ModelRecord
from riformer_deploy.model import RIFormer
from riformer_deploy.precision import PrecisionOptions
from riformer_deploy.progress import silent
from riformer_deploy.sensitivity import Gate
from riformer_deploy.tuning import gated
from riformer_deploy.variants import Preprocessing

RESIDUAL = PrecisionOptions(quantize_residual=True)


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
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images = CalibrationSet(
        source="", random=False, count=2, content_sha256="", warnings=(), batches=lambda: iter([batch])
    )
    folded = fold(tiny_model)
    calibration = measure(folded, images, "key", Wish(residual=options.quantize_residual))
    record = ModelRecord(
        variant=None,
        architecture=tiny_model.architecture,
        preprocessing=Preprocessing(resize_short_edge_px=None, crop_px=(32, 32)),
        class_names=None,
    )
    measured, gate = (images, calibration), Gate(min_sqnr_db=190)
    with pytest.raises(GateError, match="even with every layer spared") as caught:
        gated(folded, tiny_model, record, measured, precision, options, gate, silent)
    assert remedy in caught.value.remedy
    assert ("itself is not as close" in caught.value.remedy) == ("itself is not as close" in remedy)
