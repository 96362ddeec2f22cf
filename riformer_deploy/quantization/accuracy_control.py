"""Calibrates a model and chooses the layers that stay unquantised so that a gate holds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.common.enums import Norm2Form, Precision
from riformer_deploy.common.errors import GateError
from riformer_deploy.common.interruption import kept_on_interruption
from riformer_deploy.common.progress import Progress
from riformer_deploy.data.calibration import CalibrationSet, random_set
from riformer_deploy.data.calibration_files import CalibrationSource
from riformer_deploy.export.option_checks import check_config
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import (
    CalibrationConfig,
    CalibrationResult,
    calibrate,
    kept_calibration,
)
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import naming_layers
from riformer_deploy.quantization.sensitivity import (
    Cost,
    Gate,
    choose_excluded_layers,
    evaluator_of,
    rank_layers,
)

SWEEP = "fp16: whether an activation overflows was tried on random images; real ones were not given"


def calibrate_for(
    model: RIFormer,
    weights_sha256: str,
    record: ModelRecord,
    configs: Sequence[LoweringConfig],
    images: CalibrationSource,
    progress: Progress,
) -> tuple[CalibrationResult | None, tuple[str, ...]]:
    """The calibration, where any precision needs one, and what the user should know of it.

    Args:
        model: In folded form, float32.
        weights_sha256: Of its weights.
        record: The model's.
        configs: What is going to be made; one for each precision.
        images: Which images.
        progress: Called with each step.

    Raises:
        OptionError: int8 or fp8 without images.
        CalibrationError: The images cannot be used.
    """
    if not any(config.needs_calibration for config in configs):
        return None, ()
    quantized = [config.precision for config in configs if config.precision.is_quantized]
    sweep = images.source is None and not quantized
    given = (
        random_set(record.preprocessing)
        if sweep
        else images.open(record.preprocessing, " and ".join(quantized))
    )
    notes = (SWEEP,) if sweep else given.warnings
    return calibrate(Observations(model, given, progress), weights_sha256, calibration_config(configs)), notes


def parity_images(
    calibration: CalibrationResult | None, images: CalibrationSource, record: ModelRecord
) -> tuple[CalibrationSet | None, tuple[str, ...]]:
    """The images that parity runs on, where real ones were given, and what the user should know of them.

    Synthetic images can be far from all that a model was trained on: of those for riformer-digits, two have
    17 and 26 dB in bfloat16 even where only roundings are emulated, in float64; its real images have 51.

    Args:
        calibration: Where a precision needed one.
        images: Which images were named.
        record: The model's.

    Raises:
        CalibrationError: The images cannot be used.
    """
    if calibration is not None:
        return (None if calibration.images.random else calibration.images), ()
    if images.source is None:
        return None, ()
    given = images.open(record.preprocessing, "parity")
    if given.random:
        return None, ("the calibration images were not used: fp32 and bf16 need none, and these are random",)
    return given, (*given.warnings, "fp32 and bf16 need no calibration; parity runs on its images")


def calibration_config(configs: Sequence[LoweringConfig]) -> CalibrationConfig:
    """What one calibration must measure so that a model can be lowered with each of these configs.

    Args:
        configs: One for each precision; that of int8 says how ranges are chosen.
    """
    int8 = next((config for config in configs if config.precision is Precision.INT8), None)
    plain = CalibrationConfig(
        ranges=int8 is not None,
        products=any(config.norm2 is Norm2Form.FOLDED for config in configs),
        branches=any(config.norm_io is Precision.FP16 for config in configs),
    )
    if int8 is None:
        return plain
    return dataclasses.replace(
        plain,
        method=int8.range_method,
        equalize=int8.equalize is not False,
        residual=int8.quantize_residual,
    )


def _told(cost: Cost) -> str:
    sqnr = "no error" if cost.sqnr_db is None else f"{cost.sqnr_db:.2f} dB"
    return f"{sqnr}, {cost.drop_points:.2f} % of first classes changed"


def restore_accuracy(
    model: RIFormer,
    reference: RIFormer,
    record: ModelRecord,
    calibration: CalibrationResult,
    config: LoweringConfig,
    gate: Gate,
    progress: Progress,
) -> tuple[LoweringConfig, str]:
    """The config with the layers excluded that the gate asks for, and a sentence that names them.

    Args:
        model: In folded form, float32.
        reference: In training or deploy form.
        record: The model's.
        calibration: The images and what was measured on them.
        config: How to lower, to int8 or fp8.
        gate: What must hold on the calibration images.
        progress: Called with each step.

    Raises:
        GateError: Excluding every layer is not enough.
    """
    precision = config.precision
    progress(f"measuring {precision} for the gate")
    evaluator = evaluator_of(model, reference, record, calibration, config)
    asked = frozenset(config.exclude_layers)
    excluded, cost = asked, evaluator.cost(asked)
    if not gate.holds(cost):
        ranking = rank_layers(evaluator, progress).layers
        excluded, cost = choose_excluded_layers(evaluator, ranking, gate, progress)
    where = f"on {len(evaluator.images)} calibration images: {_told(cost)}"
    if not gate.holds(cost):
        residual = precision is Precision.INT8 and config.quantize_residual
        raise GateError(
            f"{precision} cannot hold the gate, even with every layer excluded; {where}.",
            remedy="Leave out --quantize-residual, which no excluded layer undoes, or loosen --min-sqnr or "
            "--max-drop."
            if residual
            else f"Loosen --min-sqnr or --max-drop: {config.base} itself is not as close.",
        )
    added = sorted(excluded - asked)
    text = f"the gate of {precision} holds {where}; " + (
        f"excluded for it, in {config.base}: {', '.join(added)}" if added else "no layer had to be excluded"
    )
    return dataclasses.replace(config, exclude_layers=tuple(sorted(excluded))), text


@dataclass(frozen=True, kw_only=True)
class CalibratedLowerings:
    """Configs that hold the gate, and the images behind them.

    Attributes:
        lowerings: One for each that was asked for, in order.
        result: The calibration, where a precision needs one.
        samples: Real images that parity runs on.
        notes: What the user should know of the images and of layers that were excluded.
    """

    lowerings: tuple[LoweringConfig, ...]
    result: CalibrationResult | None
    samples: CalibrationSet | None
    notes: tuple[str, ...]


def calibrate_lowerings(
    training: RIFormer,
    folded: RIFormer,
    record: ModelRecord,
    weights_sha256: str,
    lowerings: Sequence[LoweringConfig],
    images: CalibrationSource,
    gate: Gate | None,
    progress: Progress,
) -> CalibratedLowerings:
    """Calibrate a model, and exclude layers where a gate asks for it.

    Args:
        training: The reference of the gate.
        folded: The same model in folded form, float32.
        record: The model's.
        weights_sha256: Of its weights.
        lowerings: What is going to be made.
        images: Which calibration images.
        gate: What int8 and fp8 must hold to; None for none.
        progress: Called with each step.

    Raises:
        OptionError: A config cannot be honoured, or int8 or fp8 were asked for without images.
        CalibrationError: The images cannot be used.
        GateError: The gate cannot be held, whatever is excluded.
    """
    for config in lowerings:
        check_config(config, folded)
    lowerings = [naming_layers(config, quantizable(folded)) for config in lowerings]
    result, remarks = calibrate_for(folded, weights_sha256, record, lowerings, images, progress)
    samples, more = parity_images(result, images, record)
    notes, chosen = [*remarks, *more], []
    for config in lowerings:
        if result is not None and gate is not None and config.precision.is_quantized:
            with kept_on_interruption(functools.partial(kept_calibration, result)):
                gated, text = restore_accuracy(folded, training, record, result, config, gate, progress)
            notes.append(text)
            chosen.append(gated)
        else:
            chosen.append(config)
    return CalibratedLowerings(lowerings=tuple(chosen), result=result, samples=samples, notes=tuple(notes))
