from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.evaluation.accuracy_results import (
    AccuracyComparison,
    ArtifactAccuracy,
    compare_accuracy,
    share_of,
)
from riformer_deploy.evaluation.results import Status
from tests.candidates import labelled

CARD = ArtifactAccuracy(
    config=labelled("ours"),
    artifact_sha256="00",
    images=397,
    not_finite=0,
    top1=share_of(379, 397),
    top5=share_of(396, 397),
)


def judged(lost: int, gained: int, max_drop: float | None) -> AccuracyComparison:
    return compare_accuracy(
        labelled("ours"),
        labelled("theirs"),
        lost=lost,
        gained=gained,
        changed=99,
        images=1000,
        max_drop_points=max_drop,
    )


def test_shares_are_percentages_with_their_interval() -> None:
    assert CARD.top1.percent == pytest.approx(95.466, abs=5e-4)
    low, high = CARD.top1.ci95_percent
    assert 92 < low < 95.466 < high < 98


@pytest.mark.parametrize(
    ("lost", "gained", "max_drop", "status"),
    [
        (3, 1, 0.1, Status.FAILED),
        (3, 1, 0.2, Status.PASSED),  # exactly the limit
        (3, 1, None, Status.PASSED),
        (1, 3, 0.0, Status.PASSED),
        (0, 0, 0.0, Status.PASSED),
        (1, 0, 0.0, Status.FAILED),
    ],
)
def test_the_gate_is_on_the_measured_drop(
    lost: int, gained: int, max_drop: float | None, status: Status
) -> None:
    found = judged(lost, gained, max_drop)
    assert found.status is status
    assert found.drop_points == pytest.approx((lost - gained) / 10)


def test_records_whose_figures_do_not_follow_from_their_counts_are_refused() -> None:
    assert load_json(ArtifactAccuracy, dump_json(CARD)) == CARD
    with pytest.raises(ValueError, match="does not follow"):
        dataclasses.replace(CARD, images=398)
    text = dump_json(CARD).replace('"right": 379', '"right": 380')
    with pytest.raises(RecordError, match="does not follow"):
        load_json(ArtifactAccuracy, text)
    found = judged(3, 1, None)
    assert load_json(AccuracyComparison, dump_json(found)) == found
    with pytest.raises(RecordError, match="does not follow"):
        load_json(AccuracyComparison, dump_json(found).replace('"lost": 3', '"lost": 2'))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"images": 397', '"images": 0'), ('"images": 397', '"images": 1e400'), ('"right": 379', '"right": -1')],
)
def test_counts_that_are_none_are_refused(old: str, new: str) -> None:
    with pytest.raises(RecordError):
        load_json(ArtifactAccuracy, dump_json(CARD).replace(old, new))
