from __future__ import annotations

import numpy as np
import pytest

from riformer_deploy.data.calibration import CalibrationSet, batch_size, random_set, remarks
from riformer_deploy.data.preprocessing import Preprocessing

PLAIN = Preprocessing(resize_short_edge_px=None, crop_px=(16, 16))


def _numbered(count: int) -> CalibrationSet:
    values = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return CalibrationSet(
        source="",
        random=False,
        count=count,
        content_sha256="",
        warnings=(),
        batches=lambda: iter(np.split(values, range(3, count, 3))),
    )


@pytest.mark.parametrize(
    ("asked", "expected"), [(1, [0]), (3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10)))]
)
def test_images_are_taken_evenly_from_all_of_them(asked: int, expected: list[int]) -> None:
    assert _numbered(10).spread(asked).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("count", "distinct", "expected"),
    [
        (64, 64, ()),
        (63, 63, ("only 63 calibration images; 64 or more are advised",)),
        (100, 1, ("all 100 calibration images are the same",)),
        (100, 50, ("only 50 of the 100 calibration images differ",)),
        (100, 51, ()),
        (1, 1, ("only 1 calibration images; 64 or more are advised",)),
    ],
)
def test_few_or_like_images_are_remarked_on(count: int, distinct: int, expected: tuple[str, ...]) -> None:
    found = remarks(count, distinct)
    assert found[: len(expected)] == expected
    assert bool(found) == bool(expected)


def test_random_images_are_marked_and_repeat() -> None:
    images = random_set(PLAIN)
    first, second = np.concatenate(list(images.batches())), np.concatenate(list(images.batches()))
    assert images.random
    assert "random" in images.warnings[0]
    assert np.array_equal(first, second)
    assert len(first) == images.count == len(np.unique(first, axis=0))
    assert random_set(PLAIN, seed=1).content_sha256 != images.content_sha256


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), 16), ((224, 224), 4), ((384, 384), 1), ((999, 999), 1)]
)
def test_larger_images_run_fewer_at_once(size: tuple[int, int], expected: int) -> None:
    assert batch_size(size) == expected
