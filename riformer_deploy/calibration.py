"""Measures a folded model on images, once: ranges for int8, peaks for half precision."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from riformer_deploy.calibration_sets import CalibrationSet
from riformer_deploy.files import replacing
from riformer_deploy.model import FoldedBlock, RIFormer
from riformer_deploy.observers import Method, chosen_range, equalizer, histograms, largest_inputs
from riformer_deploy.records import RecordError, dump_json, load_json

_LOG = logging.getLogger(__name__)

CACHE_VERSION = 1
"""Part of every key: raise it when the measurement changes."""

Progress = Callable[[str], None]
"""Called with the name of each step as it begins."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured.

    Attributes:
        key: sha256 of everything that the measurement depends on.
        images: Number of images.
        ranges: For each layer, the absolute input value that 127 steps shall reach.
        divisors: For the layers whose input is equalised, what its channels are divided by.
        residual_ranges: For both inputs of each block's last addition (``stream``, ``branch``), likewise.
        peaks: For each block and downsampling layer, the largest absolute value of anything that half
            precision would store there.
    """

    key: str
    images: int
    ranges: dict[str, float]
    divisors: dict[str, tuple[float, ...]]
    residual_ranges: dict[str, float]
    peaks: dict[str, float]


def quantizable(model: RIFormer) -> tuple[str, ...]:
    """Names of the convolutions and the head, in the network's order."""
    return tuple(name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def _equalized(name: str) -> bool:
    """Downsampling layers: they read the residual stream, whose channels differ most in range."""
    return name.startswith("backbone.network.") and name.endswith(".proj")


def calibration_key(weights_sha256: str, images: CalibrationSet, method: Method, *, equalize: bool) -> str:
    """sha256 over everything that a calibration depends on.

    Args:
        weights_sha256: Of the weights' values.
        images: Its content, size and preprocessing count.
        method: How ranges are chosen.
        equalize: Whether downsampling inputs are equalised.
    """
    parts = (str(CACHE_VERSION), weights_sha256, images.content_sha256, str(method), str(equalize))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def measure_peaks(model: RIFormer, batches: Callable[[], Iterable[Tensor]]) -> dict[str, Tensor]:
    """Largest absolute values of what a block in half precision would store.

    Args:
        model: In folded form.
        batches: The images.

    Returns:
        By name of the value: ``<block>.stream``, ``<block>.branch``, ``<block>`` and the inputs and results
        of every layer; 0-dimensional, infinity or NaN where one was seen.
    """
    peaks: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        top = value.detach().abs().max()
        peaks[name] = torch.maximum(peaks[name], top) if name in peaks else top

    def watch(name: str, module: nn.Module) -> list[RemovableHandle]:
        def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            see(f"{name}.input", inputs[0])

        def after(_module: nn.Module, _inputs: object, result: Tensor) -> None:
            see(name, result)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, FoldedBlock)) or name.endswith(".norm2"):
            handles += watch(name, module)
    try:
        with torch.inference_mode():
            for batch in batches():
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return peaks


def _block_peaks(peaks: Mapping[str, Tensor], blocks: Iterable[str]) -> dict[str, float]:
    """The largest peak within each block, and of each layer outside blocks."""
    found: dict[str, float] = {}
    owners = tuple(blocks)
    for name, value in peaks.items():
        place = name.removesuffix(".input")
        owner = next((block for block in owners if place == block or place.startswith(f"{block}.")), place)
        top = float(value)
        found[owner] = top if not top <= found.get(owner, 0.0) else found[owner]
    return found


def measure(
    model: RIFormer,
    images: CalibrationSet,
    key: str,
    method: Method,
    *,
    equalize: bool,
    progress: Progress = lambda _: None,
) -> Calibration:
    """Run the images through the folded model, twice, and choose every range.

    Args:
        model: In folded form, float32.
        images: What to run.
        key: From :func:`calibration_key`.
        method: How to choose ranges.
        equalize: Equalise the inputs of the downsampling layers.
        progress: Told of each pass.
    """
    names, modules = quantizable(model), dict(model.named_modules())
    progress("calibrating: largest values")
    largest = largest_inputs(model, names, images.batches)
    peaks = measure_peaks(model, images.batches)
    divisors = {
        name: equalizer(modules[name], largest[name]) for name in names if equalize and _equalized(name)
    }
    progress("calibrating: histograms")
    found = histograms(model, largest, images.batches, divisors)
    blocks = [name for stage in model.architecture.block_names for name in stage]
    residual = {f"{block}.stream": float(peaks[f"{block}.norm2.input"]) for block in blocks}
    residual |= {f"{block}.branch": float(peaks[f"{block}.mlp.fc2"]) for block in blocks}
    return Calibration(
        key=key,
        images=images.count,
        ranges={name: chosen_range(histogram, method) for name, histogram in found.items()},
        divisors={name: tuple(value.tolist()) for name, value in divisors.items()},
        residual_ranges=residual,
        peaks=_block_peaks(peaks, blocks),
    )


def cache_folder() -> Path:
    """Where calibrations are kept: ``riformer-deploy`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "riformer-deploy" / "calibrations"


def calibrate(
    model: RIFormer,
    weights_sha256: str,
    images: CalibrationSet,
    method: Method,
    *,
    equalize: bool = True,
    progress: Progress = lambda _: None,
) -> Calibration:
    """The calibration of these weights on these images, from the cache where it holds it.

    A cached calibration is used only if its own key is the one asked for; a damaged one is measured anew.

    Args:
        model: In folded form, float32.
        weights_sha256: Of its weights.
        images: What to run.
        method: How to choose ranges.
        equalize: Equalise the inputs of the downsampling layers.
        progress: Told of each pass.
    """
    key = calibration_key(weights_sha256, images, method, equalize=equalize)
    path = cache_folder() / f"{key}.json"
    try:
        cached = load_json(Calibration, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecordError):
        cached = None
    if cached is not None and cached.key == key and set(cached.ranges) == set(quantizable(model)):
        _LOG.info("calibration %s comes from the cache", key[:12])
        return cached
    measured = measure(model, images, key, method, equalize=equalize, progress=progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(dump_json(measured), encoding="utf-8")
    except (OSError, ValueError) as err:
        _LOG.warning("the calibration could not be cached: %s", err)
    return measured
