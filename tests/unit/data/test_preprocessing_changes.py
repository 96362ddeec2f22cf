from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Interpolation, Preprocessing, ResizeBackend
from riformer_deploy.data.preprocessing_changes import (
    AS_FOUND,
    EXAMPLE,
    PreprocessingChanges,
    changes_text,
    parse_changes,
)
from riformer_deploy.model.variants import VARIANTS

S12 = VARIANTS["riformer-s12_in1k"].preprocessing


def test_the_example_is_the_published_preprocessing() -> None:
    changed = parse_changes(EXAMPLE).apply(S12)
    assert changed == Preprocessing(resize_short_edge_px=248, crop_px=(224, 224), source="option")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crop=64", PreprocessingChanges(crop_px=(64, 64))),
        ("crop=64x96", PreprocessingChanges(crop_px=(64, 96))),
        ("short-edge=none", PreprocessingChanges(resize_short_edge_px=0)),
        (" short-edge=300 , order=bgr", PreprocessingChanges(resize_short_edge_px=300, channel_order="BGR")),
        ("interpolation=lanczos", PreprocessingChanges(interpolation=Interpolation.LANCZOS)),
        ("std=1/2.5/3", PreprocessingChanges(std=(1, 2.5, 3))),
    ],
)
def test_settings_are_read(text: str, expected: PreprocessingChanges) -> None:
    assert parse_changes(text) == expected


def test_what_is_not_said_stays() -> None:
    assert AS_FOUND.apply(S12) is S12
    changed = parse_changes("short-edge=none,crop=100").apply(S12)
    assert changed == Preprocessing(resize_short_edge_px=None, crop_px=(100, 100), source="option")


def test_everything_that_cannot_be_read_is_listed() -> None:
    with pytest.raises(OptionError) as caught:
        parse_changes("crop=big,size=3,mean=1/2,interpolation=cubic,std,crop=3,crop=4")
    text = "\n".join(caught.value.details)
    for part in (
        "crop: 'big'",
        "'size=3'",
        "mean: '1/2'",
        "interpolation: 'cubic'",
        "'std'",
        "crop is given twice",
    ):
        assert part in text
    assert EXAMPLE in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("crop=300", "smaller than the crop"),
        ("crop=0", "at least 1 px"),
        ("short-edge=-1", "at least 1 px"),
        ("std=0/1/1", "std must be positive"),
        ("std=1e-300/1/1", "std must be positive, from 1e-06"),
        ("mean=1e300/1/1", "mean must be finite, within 1e\\+06 of 0"),
        ("crop=1000000", "at most 4,096 px a side"),
        ("mean=nan/1/1", "mean must be finite"),
        ("order=GBR", "neither RGB nor BGR"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        parse_changes(text).apply(S12)


def test_a_short_edge_takes_the_place_of_what_is_not_done_here() -> None:
    found = dataclasses.replace(
        S12,
        resize_short_edge_px=None,
        resize_to_px=(256, 256),
        unsupported=("Pad",),
        resize_backend=ResizeBackend.OPENCV,
    )
    changed = parse_changes("short-edge=248,backend=pillow").apply(found)
    assert changed == dataclasses.replace(S12, source="option")
    assert parse_changes("mean=1/2/3").apply(found).unsupported == ("Pad",)


@pytest.mark.parametrize("text", [EXAMPLE, "short-edge=none,crop=100", ""])
def test_changes_are_written_as_they_are_read(text: str) -> None:
    changes = parse_changes(text) if text else AS_FOUND
    written = changes_text(changes)
    assert bool(written) == bool(text)
    assert (parse_changes(written) if written else AS_FOUND) == changes
