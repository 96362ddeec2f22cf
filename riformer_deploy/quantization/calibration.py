"""Measures a folded model on images, once: ranges for int8 and fp8, absolute maxima for half precision."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from riformer_deploy.common.enums import Method
from riformer_deploy.common.replacing import replacing
from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.common.version import VERSION
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.observers import chosen_range
from riformer_deploy.quantization.overflow import block_abs_max, weight_abs_max
from riformer_deploy.system.user_files import calibration_cache

_LOG = logging.getLogger(__name__)

CACHE_VERSION = 7
"""Part of every key: raise it when the measurement changes."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured.

    Attributes:
        key: sha256 of everything that the measurement depends on.
        images: Number of images.
        ranges: For each layer, the absolute input value that int8's 127 steps shall reach; none if not asked
            for.
        smoothquant_scales: For the layers whose input is equalised, what its channels are divided by.
        residual_ranges: The absolute value that int8's 127 steps shall reach; none if not asked for. By name
            of the block and ``stream`` (the first addition's result), ``branch`` (the MLP's) or ``result``,
            and by name of the embedding and ``result``.
        abs_max: For each block and downsampling layer, the largest absolute value of anything that half
            precision would store there.
        largest: For each layer, the largest absolute input value, before any equalising.
    """

    key: str
    images: int
    ranges: dict[str, float]
    smoothquant_scales: dict[str, tuple[float, ...]]
    residual_ranges: dict[str, float]
    abs_max: dict[str, float]
    largest: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """Calibration images and what was measured on them.

    Attributes:
        images: The images.
        calibration: What was measured.
    """

    images: CalibrationSet
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """What to measure.

    Attributes:
        method: How ranges are chosen.
        equalize: Equalise the inputs of the downsampling layers.
        ranges: Choose ranges for int8; without them only largest values are looked for, which takes one pass
            instead of two.
        residual: Choose those of the inputs and results of residual additions, too.
        products: Look for absolute maxima of fc1's product with what ``norm2`` takes, too: with ``norm2``
            folded into fc1, half precision stores it.
        branches: Look for absolute maxima of ``norm_reparam``'s result, without its bias and with it, too:
            with norms in half precision, half stores both.
    """

    method: Method = Method.MSE
    equalize: bool = True
    ranges: bool = True
    residual: bool = False
    products: bool = False
    branches: bool = False


def calibration_key(weights_sha256: str, images: CalibrationSet, config: CalibrationConfig) -> str:
    """sha256 over everything that a calibration depends on.

    Args:
        weights_sha256: Of the weights' values.
        images: Its content, size and preprocessing count.
        config: What to measure.
    """
    versions = (str(CACHE_VERSION), VERSION, torch.__version__)
    parts = (*versions, weights_sha256, images.content_sha256, str(images.count), dump_json(config))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def measure(observed: Observations, key: str, config: CalibrationConfig) -> Calibration:
    """Choose every range.

    Args:
        observed: The model on the images; what it has not seen yet, it looks at.
        key: From :func:`calibration_key`.
        config: What to measure.

    Raises:
        CalibrationError: The model overflows float32 on these images.
    """
    model, residual = observed.model, observed.residual_tensors
    blocks = [name for stage in model.architecture.block_names for name in stage]
    abs_max, largest = observed.abs_max(products=config.products, branches=config.branches)
    abs_max = abs_max | weight_abs_max(model)
    smoothquant_scales = observed.equalizers() if config.equalize and config.ranges else {}
    # An equalised input is divided in the base type: what that gives must fit as well.
    abs_max |= {
        f"{name}.equalized": (largest[name] / smoothquant_scale).max()
        for name, smoothquant_scale in smoothquant_scales.items()
    }
    ranges: dict[str, float] = {}
    if config.ranges:
        found = observed.histograms(equalize=config.equalize, residual=config.residual)
        ranges = {
            name: chosen_range(histogram, config.method)
            for name, histogram in found.items()
            if config.residual or name not in residual
        }
    return Calibration(
        key=key,
        images=observed.images.count,
        ranges={name: top for name, top in ranges.items() if name not in residual},
        smoothquant_scales={name: tuple(value.tolist()) for name, value in smoothquant_scales.items()},
        residual_ranges={name: top for name, top in ranges.items() if name in residual},
        abs_max=block_abs_max(abs_max, blocks),
        largest={name: float(top.max()) for name, top in largest.items()},
    )


def _cached(path: Path, key: str) -> Calibration | None:
    """What a cache file holds, if it is whole and of this key: its first line is the sha256 of the rest."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            return None
        found = load_json(Calibration, text)
    except (OSError, UnicodeDecodeError, RecordError):
        return None
    return found if found.key == key else None


def kept_calibration(result: CalibrationResult | None) -> str:
    """That the cache holds a calibration, to be told after an interruption; empty where it does not.

    Args:
        result: None where there was nothing to calibrate.
    """
    if result is None or not (calibration_cache() / f"{result.calibration.key}.json").exists():
        return ""
    return f"the calibration on {result.calibration.images} images is kept in {calibration_cache()}"


def calibrate(observed: Observations, weights_sha256: str, config: CalibrationConfig) -> CalibrationResult:
    """The calibration of these weights on these images, from the cache where it holds it.

    A cached calibration is used only if its own key is the one asked for and its content is what was
    written; any other is measured anew.

    Args:
        observed: The model on the images; nothing is run where the cache holds the calibration.
        weights_sha256: Of the model's weights.
        config: What to measure.

    Raises:
        CalibrationError: The model overflows float32 on these images.
    """
    images = observed.images
    key = calibration_key(weights_sha256, images, config)
    path = calibration_cache() / f"{key}.json"
    cached = _cached(path, key)
    if cached is not None:
        _LOG.info("calibration %s comes from the cache", key[:12])
        return CalibrationResult(images=images, calibration=cached)
    measured = measure(observed, key, config)
    text = dump_json(measured)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")
    except OSError as err:
        _LOG.warning("the calibration could not be cached: %s", err)
    return CalibrationResult(images=images, calibration=measured)
