"""Which layers int8 costs most, of a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.export.config import PrecisionOptions
from riformer_deploy.export.option_checks import check_options, refuse_unused
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.accuracy_control import calibration_config
from riformer_deploy.quantization.calibration import calibrate
from riformer_deploy.quantization.sensitivity import (
    SensitivityReport,
    evaluator_of,
    rank_layers,
)

__all__ = [
    "CalibrationSource",
    "PrecisionOptions",
    "SensitivityReport",
    "bundle_sensitivity",
]


def bundle_sensitivity(
    directory: Path,
    images: CalibrationSource,
    options: PrecisionOptions,
    precision: Precision = Precision.INT8,
    progress: Progress = silent,
) -> SensitivityReport:
    """``sensitivity``: what quantising each layer of a bundle's model alone costs.

    Args:
        directory: The bundle.
        images: Which calibration images.
        options: How to lower.
        precision: What layers are quantised to.
        progress: Called with each step.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        CalibrationError: The images are not usable.
        OptionError: No images were named, the precision quantises nothing, or an option has no effect on it.
    """
    if not precision.is_quantized:
        raise OptionError(f"{precision} quantises no layer.", remedy="Ask for int8 or fp8.")
    refuse_unused((precision,), options)
    bundle = Bundle.open(directory)
    record, source = bundle.manifest.model, bundle.manifest.source
    given = images.open(record.preprocessing, str(precision))
    reference = model_of(bundle.path_of(bundle.manifest.reference.file))
    folded = fold(reference)
    check_options(precision, options, folded)
    config = calibration_config(options, ranges=precision is Precision.INT8)
    calibration = calibrate(folded, source.weights_sha256, given, config, progress)
    evaluator = evaluator_of(folded, reference, record, (given, calibration), options, precision)
    report = rank_layers(evaluator, given.source, progress)
    return dataclasses.replace(report, random=given.random, warnings=given.warnings)
