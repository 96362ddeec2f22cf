"""Our graphs in any form, lowered and written as ``export`` does, with no bundle and no proof around them."""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import NormForm, Precision, ResidualForm
from riformer_deploy.data.calibration import CalibrationSet

# Internals: graphs are made in every form without a bundle around them.
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, OnnxOptions, export_onnx
from riformer_deploy.export.option_checks import BF16_OPSET, GROUP_NORM_OPSET
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, measure
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import resolve_lowering

STREAM_INT8 = LoweringConfig(
    precision=Precision.INT8,
    norm=NormForm.GROUP,
    quantize_residual=True,
    residual_form=ResidualForm.RESULTS,
)
"""The residual stream between blocks in int8, which NNCF does, too."""
DEFAULT_FORMS = {
    f"{precision} {norm}": LoweringConfig(precision=precision, norm=norm)
    for precision in Precision
    for norm in NormForm
}
"""Every norm form of every precision."""


def calibrated(
    folded: RIFormer, images: CalibrationSet, config: CalibrationConfig | None = None
) -> CalibrationResult:
    """What calibration finds of a model; by default with what int8 residual streams need.

    Args:
        folded: In its folded form.
        images: What to calibrate on.
        config: How.
    """
    measured = measure(Observations(folded, images), "benchmark", config or CalibrationConfig(residual=True))
    return CalibrationResult(images=images, calibration=measured)


def write_form(
    folded: RIFormer,
    config: LoweringConfig,
    calibration: CalibrationResult,
    preprocessing: Preprocessing,
    path: Path,
) -> Path:
    """Write one form, in the default operator set or the first that can express it: what a user gets.

    Args:
        folded: The model in its folded form.
        config: The form.
        calibration: From :func:`calibrated`.
        preprocessing: The model's.
        path: Where to write.
    """
    opset = DEFAULT_OPSET
    if config.precision is Precision.BF16:
        opset = BF16_OPSET
    elif config.norm is NormForm.GROUP:
        opset = max(DEFAULT_OPSET, GROUP_NORM_OPSET)
    resolved = resolve_lowering(config, calibration)
    options = OnnxOptions(image_size_px=preprocessing.crop_px, opset=opset)
    export_onnx(lower(folded, resolved, preprocessing), path, options, {})
    return path
