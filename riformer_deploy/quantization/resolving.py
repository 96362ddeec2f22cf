"""Resolves a lowering config: what of it follows from calibration images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import assert_never

from riformer_deploy.bundle.layer_groups import selected
from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig, quantizes
from riformer_deploy.common.enums import Precision, ResidualForm
from riformer_deploy.common.errors import OptionError
from riformer_deploy.quantization.calibration import Calibration, CalibrationResult

HALF_LIMIT = 65504 / 2
"""Largest calibration value that half precision may store: half its range is left for unseen images."""
FP8_HEADROOM = 2
"""FP8's ranges reach so many times the largest value that calibration saw.

Clipping costs much and range almost nothing: E4M3's 3 bits of mantissa are as fine over 14 powers of two.
"""


def resolve_lowering(config: LoweringConfig, result: CalibrationResult | None) -> LoweringConfig:
    """The config with all that follows from calibration images: it can be lowered, and stored.

    Choices that have no effect on its precision are dropped.

    Args:
        config: What was asked for.
        result: Ranges and largest values; int8 and fp8 need it, and without it nothing is known of what
            overflows half precision. Not used where the config depends on no images.

    Raises:
        OptionError: int8 or fp8 without a calibration, or with one that lacks its ranges or, for int8, those
            of residual tensors which shall be int8.
    """
    config = config.heeded()
    if result is not None:
        config = naming_layers(config, result.calibration.largest or result.calibration.ranges)
    if not config.needs_calibration:
        return config
    if result is None:
        if config.precision.is_quantized:
            raise OptionError(
                f"{config.precision} needs calibration images.",
                remedy="Give --calibration FOLDER or FILE.npz.",
            )
        return config
    found = result.calibration
    overflowing: list[str] = []
    if config.base is Precision.FP16:
        overflowing = sorted(name for name, top in found.abs_max.items() if not top <= HALF_LIMIT)
    ranges = {
        name: top
        for name, top in _ranges(config.precision, found, overflowing).items()
        if name not in config.exclude_layers
    }
    return dataclasses.replace(
        config,
        calibration=CalibrationRecord(
            source=result.images.source,
            random=result.images.random,
            images=result.images.count,
            key=found.key,
            method=config.range_method,
        ),
        float32_blocks=tuple(overflowing),
        ranges=ranges,
        smoothquant_scales={name: item for name, item in found.smoothquant_scales.items() if name in ranges},
        residual_ranges=_residual_ranges(config, found),
    )


def naming_layers(config: LoweringConfig, layers: Iterable[str]) -> LoweringConfig:
    """The config with the layers that it excludes by name, instead of by group, block or stage.

    Args:
        config: As asked for.
        layers: Every layer that can be quantised, in the network's order.
    """
    known = tuple(layers)
    names = dict.fromkeys(
        name for choice in config.exclude_layers for name in selected((choice,), known) or (choice,)
    )
    return dataclasses.replace(config, exclude_layers=tuple(names))


def _ranges(precision: Precision, found: Calibration, overflowing: list[str]) -> dict[str, float]:
    """Ranges by layer, of every layer that the precision quantises; none for a floating precision.

    Raises:
        OptionError: The calibration holds none.
    """
    if not precision.is_quantized:
        return {}
    if precision is Precision.INT8:
        if not found.ranges:
            raise OptionError(
                "The calibration holds no ranges for int8.",
                remedy="Calibrate with CalibrationConfig(ranges=True).",
            )
        return found.ranges
    if not found.largest:
        raise OptionError(
            "The calibration holds no largest inputs of layers, from which fp8's ranges follow.",
            remedy="Calibrate again: every calibration measures them.",
        )
    # What stays in float32 stays out of fp8 too: ONNX Runtime 1.27 fuses a product of float8 whose scales
    # are float32 into an operator for int8, and then refuses the graph.
    return {
        name: FP8_HEADROOM * (top or 1.0)
        for name, top in found.largest.items()
        if quantizes(precision, name) and name.rsplit(".mlp.", 1)[0] not in overflowing
    }


def _residual_ranges(config: LoweringConfig, found: Calibration) -> dict[str, float]:
    """Ranges of the tensors of the residual stream that shall be int8.

    Raises:
        OptionError: The calibration holds none.
    """
    if not config.quantize_residual:
        return {}
    if not found.residual_ranges:
        raise OptionError(
            "The calibration holds no ranges of residual tensors, which shall be int8.",
            remedy="Calibrate with CalibrationConfig(residual=True).",
        )
    match config.residual_form:
        case ResidualForm.INPUTS:
            wanted = {"stream", "branch"}
        case ResidualForm.RESULTS:
            wanted = {"stream", "result"}
        case _:
            assert_never(config.residual_form)
    owners = {name: name.rpartition(".") for name in found.residual_ranges}
    blocks = dict.fromkeys(_block_of(owner) for owner, _, _ in owners.values())
    chosen = set(selected(config.residual_blocks, blocks) if config.residual_blocks else blocks)
    return {
        name: top
        for name, top in found.residual_ranges.items()
        if owners[name][2] in wanted and _block_of(owners[name][0]) in chosen
    }


def _block_of(owner: str) -> str:
    """The block itself, or the one that reads what an embedding gives."""
    if owner == "backbone.patch_embed":
        return "backbone.network.0.0"
    *place, last = owner.split(".")
    return owner if len(place) > 2 else f"{'.'.join(place)}.{int(last) + 1}.0"
