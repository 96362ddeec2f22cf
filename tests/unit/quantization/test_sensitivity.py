from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.sensitivity import (
    Cost,
    Gate,
    QuantizedEvaluator,
    choose_excluded_layers,
    rank_layers,
)


@pytest.fixture
def evaluator(
    digits_folded: RIFormer,
    calibrated: CalibrationResult,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
    digits_preprocessing: Preprocessing,
) -> QuantizedEvaluator:
    """Sixteen validation images."""
    return QuantizedEvaluator(
        model=digits_folded,
        calibration=calibrated,
        config=LoweringConfig(precision=Precision.INT8),
        preprocessing=digits_preprocessing,
        images=digits_inputs[:16],
        reference=digits_reference[:16],
    )


@pytest.mark.parametrize(
    ("gate", "cost", "holds"),
    [
        (Gate(min_sqnr_db=40), Cost(sqnr_db=40.0, drop_points=9), True),
        (Gate(min_sqnr_db=40), Cost(sqnr_db=39.9, drop_points=0), False),
        (Gate(min_sqnr_db=40), Cost(sqnr_db=None, drop_points=0), True),
        (Gate(max_drop_points=0.3), Cost(sqnr_db=1.0, drop_points=0.3), True),
        (Gate(max_drop_points=0.3), Cost(sqnr_db=90.0, drop_points=0.4), False),
        (Gate(min_sqnr_db=40, max_drop_points=1), Cost(sqnr_db=50.0, drop_points=2), False),
    ],
)
def test_a_gate_holds_where_all_its_limits_do(gate: Gate, cost: Cost, *, holds: bool) -> None:
    assert gate.holds(cost) is holds


@pytest.mark.parametrize(
    "limits", [{"max_drop_points": -1}, {"max_drop_points": 101}, {"min_sqnr_db": float("nan")}]
)
def test_an_impossible_gate_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Gate(**limits)


def _with(evaluator: QuantizedEvaluator, **changes: dict[str, float]) -> QuantizedEvaluator:
    """The evaluator with another calibration."""
    result = evaluator.calibration
    changed = dataclasses.replace(result.calibration, **changes)  # type: ignore[arg-type]  # fields of one type
    return dataclasses.replace(evaluator, calibration=dataclasses.replace(result, calibration=changed))


@pytest.mark.untraced
def test_the_damaged_layer_is_ranked_first_and_excluded_first(evaluator: QuantizedEvaluator) -> None:
    worst = "backbone.network.2.1.mlp.fc2"
    before = evaluator.calibration.calibration.ranges
    evaluator = _with(evaluator, ranges={**before, worst: before[worst] * 40})
    said: list[str] = []
    report = rank_layers(evaluator, said.append)
    assert {item.layer for item in report.layers} == set(quantizable(evaluator.model))
    assert report.layers[0].layer == worst
    costs = [item.cost.sqnr_db for item in report.layers]
    assert costs == sorted(costs, key=lambda cost: cost or 0)
    assert len(said) == len(report.layers)
    assert report.everything.sqnr_db is not None
    gate = Gate(min_sqnr_db=report.everything.sqnr_db + 3)
    excluded, cost = choose_excluded_layers(evaluator, report.layers, gate)
    assert worst in excluded
    assert gate.holds(cost)
    assert len(excluded) < 5


@pytest.mark.untraced
def test_fp8_is_measured_on_its_own_layers_alone(evaluator: QuantizedEvaluator) -> None:
    worst = "backbone.network.4.1.mlp.fc1"
    before = evaluator.calibration.calibration.largest
    loud = _with(evaluator, largest={**before, worst: before[worst] / 8})
    evaluator = dataclasses.replace(loud, config=LoweringConfig(precision=Precision.FP8))
    layers = [name for name in quantizable(evaluator.model) if ".mlp." in name]
    ranking = rank_layers(
        dataclasses.replace(evaluator, images=evaluator.images[:2], reference=evaluator.reference[:2])
    )
    assert ranking.precision is Precision.FP8
    assert {item.layer for item in ranking.layers} == set(layers)
    assert ranking.layers[0].layer == worst
    excluded, cost = choose_excluded_layers(evaluator, ranking.layers, Gate(min_sqnr_db=38))
    assert excluded == {worst}
    assert cost.sqnr_db is not None
    assert cost.sqnr_db >= 38


@pytest.mark.untraced
def test_every_layer_is_excluded_where_nothing_less_will_do(evaluator: QuantizedEvaluator) -> None:
    config = LoweringConfig(precision=Precision.INT8, int8_base=Precision.FP16)
    half = dataclasses.replace(evaluator, config=config)
    ranking = rank_layers(
        dataclasses.replace(half, images=half.images[:2], reference=half.reference[:2])
    ).layers
    gate = Gate(min_sqnr_db=100)
    excluded, cost = choose_excluded_layers(half, ranking, gate)
    assert excluded == set(quantizable(half.model))
    assert not gate.holds(cost)
    assert cost.sqnr_db is not None
    assert cost.sqnr_db > 60


def test_a_reference_of_zeros_is_no_perfect_score(evaluator: QuantizedEvaluator) -> None:
    blank = dataclasses.replace(evaluator, reference=np.zeros_like(evaluator.reference))
    assert blank.cost(frozenset()).sqnr_db == -200
