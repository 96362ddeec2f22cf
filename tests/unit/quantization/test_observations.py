from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.enums import Method
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.calibration import CalibrationConfig, measure
from riformer_deploy.quantization.observations import Observations

CONFIGS = [
    CalibrationConfig(method=Method.MAX),
    CalibrationConfig(residual=True, method=Method.PERCENTILE),
    CalibrationConfig(ranges=False, branches=True),
    CalibrationConfig(products=True, equalize=False, method=Method.MAX),
]


class Counted:
    """Images that count how often they were read from the start."""

    def __init__(self) -> None:
        self.passes = 0

    def _batches(self) -> Iterator[NDArray[np.float32]]:
        self.passes += 1
        yield np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)

    @property
    def images(self) -> CalibrationSet:
        return CalibrationSet(
            source="", random=False, count=4, content_sha256="some", warnings=(), batches=self._batches
        )


def test_many_calibrations_share_passes_and_are_those_that_each_would_be_by_itself(
    tiny_model: RIFormer,
) -> None:
    folded, counted = fold(tiny_model), Counted()
    observed = Observations(folded, counted.images, several=True)
    shared = [measure(observed, "key", config) for config in CONFIGS]
    # largest values: plain, branches, products; histograms: equalised and not
    assert counted.passes == 5
    for config, found in zip(CONFIGS, shared, strict=True):
        assert found == measure(Observations(folded, counted.images), "key", config)


def test_one_calibration_looks_at_what_it_needs_alone(tiny_model: RIFormer) -> None:
    counted = Counted()
    observed = Observations(fold(tiny_model), counted.images)
    alone = observed.histograms(equalize=True, residual=False)
    assert not set(alone) & set(observed.residual_tensors)
    assert set(observed.histograms(equalize=True, residual=True)) > set(alone)
    assert counted.passes == 3


def test_what_was_seen_once_is_not_run_again(tiny_model: RIFormer) -> None:
    counted, config = Counted(), CONFIGS[0]
    observed = Observations(fold(tiny_model), counted.images)
    assert measure(observed, "key", config) == measure(observed, "key", config)
    assert counted.passes == 2
