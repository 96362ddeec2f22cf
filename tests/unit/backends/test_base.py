from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from riformer_deploy.backends.base import ANY_BATCH, BatchRange, Outputs, Runtime, run_all
from riformer_deploy.data.transforms import Images


class Picky(Runtime):
    """Takes some batch sizes only; an image's score is its first pixel."""

    def __init__(self, batches: BatchRange) -> None:
        self.batches = batches
        self.seen: list[int] = []

    def run(self, images: Images) -> Outputs:
        assert self.batches.refusal(len(images)) is None
        self.seen.append(len(images))
        return {"logits": images[:, :1, 0, 0].copy(), "features": images[:, 0, :, 0].copy()}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing."""


def _images(count: int) -> Images:
    return np.arange(count, dtype=np.float32).repeat(12).reshape(count, 3, 2, 2)


@pytest.mark.parametrize(
    ("batches", "count", "seen"),
    [
        (ANY_BATCH, 5, [5]),
        (BatchRange.of(1), 3, [1, 1, 1]),
        (BatchRange.of(2), 5, [2, 2, 2]),
        (BatchRange.of(8), 3, [8]),
        (BatchRange(ranges=((1, 4),)), 9, [4, 4, 1]),
        (BatchRange(ranges=((3, 4),)), 9, [4, 4, 3]),
        (BatchRange(ranges=((3, None),)), 2, [3]),
        (BatchRange(ranges=((1, 1), (4, 8))), 2, [4]),
        (BatchRange(ranges=((1, 1), (4, 8))), 9, [8, 1]),
        (BatchRange(ranges=((4, 8), (16, 16))), 27, [16, 16]),
        (BatchRange(ranges=((3, None),)), 7, [7]),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_any_number_of_images_goes_in_sizes_that_are_taken_and_comes_back_in_order(
    batches: BatchRange, count: int, seen: list[int]
) -> None:
    runtime = Picky(batches)
    found = run_all(runtime, _images(count), batches)
    assert runtime.seen == seen
    assert {name: values.shape for name, values in found.items()} == {
        "logits": (count, 1),
        "features": (count, 2),
    }
    np.testing.assert_array_equal(found["logits"][:, 0], np.arange(count))


@pytest.mark.parametrize(
    ("batches", "size", "said"),
    [
        (BatchRange.of(2), 3, "takes batch 2 only, not 3"),
        (BatchRange(ranges=((2, 8),)), 1, "takes batches of 2 to 8 only, not 1"),
        (BatchRange(ranges=((2, 8),)), 9, "takes batches of 2 to 8 only, not 9"),
        (BatchRange(ranges=((2, None),)), 1, "takes batches of 2 to any size only, not 1"),
        (BatchRange(ranges=((2, None),)), 200, None),
        (BatchRange.of(None), 1, None),
        (BatchRange(ranges=((1, 1), (4, 8))), 2, "takes batches of 1, 4 to 8 only, not 2"),
        (BatchRange(ranges=((1, 1), (4, 8))), 4, None),
    ],
)
def test_a_size_that_is_not_taken_is_refused_with_those_that_are(
    batches: BatchRange, size: int, said: str | None
) -> None:
    assert batches.refusal(size) == said
