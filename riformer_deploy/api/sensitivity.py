"""Which layers int8 or fp8 costs most, of a bundle."""

from __future__ import annotations

from pathlib import Path

import torch

from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.interruption import kept_on_interruption
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.export.option_checks import check_config, refuse_unused
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.accuracy_control import calibration_config
from riformer_deploy.quantization.calibration import calibrate, kept_calibration
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.sensitivity import SensitivityReport, evaluator_of, rank_layers

__all__ = [
    "CalibrationSource",
    "LoweringConfig",
    "SensitivityReport",
    "bundle_sensitivity",
]


def bundle_sensitivity(
    directory: Path | str, images: CalibrationSource, config: LoweringConfig, progress: Progress = silent
) -> SensitivityReport:
    """``sensitivity``: what quantising each layer of a bundle's model alone costs.

    Args:
        directory: The bundle.
        images: Which calibration images.
        config: How to lower, to int8 or fp8.
        progress: Called with each step.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        CalibrationError: The images are not usable.
        OptionError: No images were named, the precision quantises nothing, or an option has no effect on it.
    """
    if not config.precision.is_quantized:
        raise OptionError(f"{config.precision} quantises no layer.", remedy="Ask for int8 or fp8.")
    refuse_unused([config])
    bundle = Bundle.open(directory)
    record, source = bundle.manifest.model, bundle.manifest.source
    given = images.open(record.preprocessing, str(config.precision))
    reference = stored_model(bundle, bundle.manifest.reference, torch.float32)
    folded = fold(reference)
    check_config(config, folded)
    observed = Observations(folded, given, progress)
    calibration = calibrate(observed, source.weights_sha256, calibration_config([config]))
    with kept_on_interruption(lambda: kept_calibration(calibration)):
        return rank_layers(evaluator_of(folded, reference, record, calibration, config), progress)
