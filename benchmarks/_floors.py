"""Measured kernels beside their floors."""

from __future__ import annotations

from typing import Any

from _roofline import STORED_AS, Ceiling, floor_of, layers_of
from _suite import Timed

# Internals: floors follow from the model's shape.
from riformer_deploy.bundle.manifest import ModelRecord
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.evaluation.results import Timing


def floor_rows(timed: Timed, model: ModelRecord, ceiling: Ceiling) -> list[Any]:
    """Every series of kernels with a cold L2 cache beside its floor.

    Args:
        timed: Latencies.
        model: What was timed.
        ceiling: The device's rates.
    """
    rows = []
    for series in timed.result.samples:
        if series.timing is not Timing.COMPUTE:
            continue
        stored = STORED_AS[series.config.precision]
        layers = layers_of(model.architecture, model.preprocessing.crop_px[0], series.batch, stored)
        floor = floor_of(layers, ceiling, stored)
        if floor is None:
            continue
        took_ms = series.summary.median_ms
        rows.append(
            {
                "variant": timed.variant,
                "name": series.name,
                "batch": series.batch,
                "kernels_ms": took_ms,
                "floor": to_jsonable(floor),
                "share_of_floor": floor.layers_ms / took_ms,
                "share_of_cached_floor": floor.cached_layers_ms / took_ms,
                "gflop": sum(layer.flops for layer in layers) / 1e9,
                "megabytes": sum(layer.moved_bytes for layer in layers) / 1e6,
            }
        )
    return rows
