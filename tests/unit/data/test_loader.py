from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from riformer_deploy.common.errors import ImageError, OptionError
from riformer_deploy.data.decoding import Rgb
from riformer_deploy.data.loader import LoaderOptions, load_batches
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import normalize

SMALL = Preprocessing(resize_short_edge_px=None, crop_px=(2, 2))


@dataclass
class Numbered:
    """Pictures that are their number; some broken, some slow."""

    count: int
    broken: frozenset[int] = frozenset()
    slow_s: float = 0.0
    asked: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int) -> str:
        return f"picture {index}"

    def picture(self, index: int) -> Rgb:
        self.asked.append(index)
        self.threads.add(threading.get_ident())
        time.sleep(self.slow_s * (index % 3))  # later ones are often ready first
        if index in self.broken:
            raise ImageError(f"{self.name_of(index)} is broken")
        return np.full((2, 2, 3), index, np.uint8)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_pictures_come_in_order_whoever_is_ready_first(workers: int, batch: int) -> None:
    pictures = Numbered(count=11, slow_s=0.002)
    batches = list(load_batches(pictures, LoaderOptions(preprocessing=SMALL, batch=batch, workers=workers)))
    assert [number for part in batches for number in part.usable] == list(range(11))
    assert [part.count for part in batches] == [min(batch, 11 - i) for i in range(0, 11, batch)]
    images = np.concatenate([part.images for part in batches])
    expected = normalize([np.full((2, 2, 3), number, np.uint8) for number in range(11)], SMALL)
    np.testing.assert_array_equal(images, expected)
    assert threading.get_ident() not in pictures.threads


def test_broken_pictures_are_named_and_the_others_keep_their_numbers() -> None:
    pictures = Numbered(count=6, broken=frozenset({0, 4, 5}))
    first, second, third = load_batches(pictures, LoaderOptions(preprocessing=SMALL, batch=2, workers=2))
    assert (first.usable, first.broken) == ((1,), {0: "picture 0 is broken"})
    assert (second.usable, second.broken) == ((2, 3), {})
    assert (third.usable, sorted(third.broken), third.images.shape) == ((), [4, 5], (0, 3, 2, 2))


def test_a_pass_begins_where_it_is_told_to() -> None:
    pictures = Numbered(count=7)
    batches = list(load_batches(pictures, LoaderOptions(preprocessing=SMALL, batch=3), start=5))
    assert [part.usable for part in batches] == [(5, 6)]
    assert min(pictures.asked) == 5


def test_no_more_than_two_batches_are_decoded_ahead_and_leaving_ends_the_threads() -> None:
    pictures = Numbered(count=1000)
    batches = load_batches(pictures, LoaderOptions(preprocessing=SMALL, batch=4, workers=2))
    next(batches)
    time.sleep(0.1)
    assert len(pictures.asked) <= 4 + 2 * 4 + 2
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_decoding_goes_on_while_the_model_works() -> None:
    pictures = Numbered(count=8)
    batches = load_batches(pictures, LoaderOptions(preprocessing=SMALL, batch=2, workers=1))
    next(batches)
    time.sleep(0.2)  # the model is at work
    assert len(pictures.asked) > 2
    batches.close()


def test_a_defect_of_ours_is_not_taken_for_a_broken_picture() -> None:
    class Defect(Numbered):
        def picture(self, index: int) -> Rgb:
            raise KeyError(index)

    with pytest.raises(KeyError):
        list(load_batches(Defect(count=2), LoaderOptions(preprocessing=SMALL)))


@pytest.mark.parametrize("setting", [{"batch": 0}, {"workers": 0}])
def test_numbers_that_are_not_positive_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="cannot be fed"):
        LoaderOptions(preprocessing=SMALL, **setting)
