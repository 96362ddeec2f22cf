from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.checkpoints.stored_pipeline import preprocessing_of, read_pipeline
from riformer_deploy.data.preprocessing import Preprocessing, ResizeBackend

PUBLISHED = (
    "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=248, edge='short', "
    "backend='pillow', interpolation='bicubic'), dict(type='CenterCrop', crop_size=224), "
    "dict(type='PackInputs')]\n"
    "data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)"
)
EXPECTED = Preprocessing(
    resize_short_edge_px=248, crop_px=(224, 224), mean=(1, 2, 3), std=(4, 5, 6), source="checkpoint"
)


@pytest.mark.parametrize(
    "name",
    ["mmpretrain.{}", "mmcls.{}", "mmpretrain.datasets.transforms.processing.{}", "mmcv.transforms.{}"],
)
def test_scoped_and_dotted_names_of_steps_are_understood(name: str) -> None:
    text = PUBLISHED
    for step in ("LoadImageFromFile", "ResizeEdge", "CenterCrop", "PackInputs"):
        text = text.replace(f"'{step}'", f"'{name.format(step)}'")
    assert preprocessing_of(text) == EXPECTED
    assert read_pipeline(text).unsupported == ()


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("backend='pillow', ", "", {"resize_backend": ResizeBackend.OPENCV}),
        ("backend='pillow'", "backend='cv2'", {"resize_backend": ResizeBackend.OPENCV}),
        (
            "type='ResizeEdge', scale=248, edge='short'",
            "type='Resize', scale=(300, 256)",
            {"resize_short_edge_px": None, "resize_to_px": (256, 300)},
        ),
        (
            "type='ResizeEdge', scale=248, edge='short'",
            "type='Resize', scale=256, keep_ratio=False",
            {"resize_short_edge_px": None, "resize_to_px": (256, 256)},
        ),
        ("type='LoadImageFromFile'", "type='LoadImageFromFile', color_type='color', backend_args=None", {}),
        ("backend='pillow', interpolation='bicubic'", "backend='cv2', interpolation='area'",
         {"resize_backend": ResizeBackend.OPENCV, "interpolation": "area"}),
        ("'PackInputs'", "'PackClsInputs'", {}),
    ],
)  # fmt: skip
def test_a_step_is_honoured_as_it_is_stored(old: str, new: str, change: dict[str, object]) -> None:
    assert old in PUBLISHED
    found = preprocessing_of(PUBLISHED.replace(old, new))
    assert found is not None
    assert found == dataclasses.replace(EXPECTED, **change)  # type: ignore[arg-type]  # by field name


def test_a_resize_to_a_fixed_size_alone_gives_the_input_size() -> None:
    text = PUBLISHED.replace("type='ResizeEdge', scale=248, edge='short'", "type='Resize', scale=(96, 64)")
    found = preprocessing_of(text.replace("dict(type='CenterCrop', crop_size=224), ", ""))
    assert found is not None
    assert (found.resize_to_px, found.crop_px) == ((64, 96), (64, 96))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("type='LoadImageFromFile'", "type='LoadImageFromFile', color_type='grayscale'", "grayscale"),
        ("type='LoadImageFromFile'", "type='LoadImageFromFile', to_float32=True", "to_float32"),
        ("dict(type='PackInputs')", "dict(type='Grayscale'), dict(type='PackInputs')", "Grayscale"),
        ("dict(type='PackInputs')", "dict(type='mmdet.Pad', size=7), dict(type='PackInputs')", "mmdet.Pad"),
        ("edge='short'", "edge='long'", "'long'"),
        ("edge='short'", "edge='short', strange=1", "strange"),
        ("interpolation='bicubic'", "interpolation='area'", "no interpolation area"),
        (
            "type='ResizeEdge', scale=248, edge='short'",
            "type='Resize', scale=9, keep_ratio=True",
            "keep_ratio",
        ),
        ("crop_size=224", "crop_size=112 + 112", "an expression that is not evaluated"),
        ("dict(type='CenterCrop', crop_size=224), ", "", "no fixed size"),
        ("test_pipeline = [", "test_pipeline = 3 or [", "an expression that is not evaluated"),
    ],
)
def test_a_step_that_is_not_understood_is_named_and_leaves_the_normalisation(
    old: str, new: str, named: str
) -> None:
    assert old in PUBLISHED
    found = read_pipeline(PUBLISHED.replace(old, new))
    assert found.geometry is None
    assert found.normalisation is not None
    assert (found.normalisation.mean, found.normalisation.channel_order) == ((1, 2, 3), "RGB")
    (problem,) = found.unsupported
    assert named in problem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("crop_size=224", "crop_size=224, auto_pad=True", "pads"),
        ("type='LoadImageFromFile'", "type='LoadImageFromFile', imdecode_backend='pillow'", "pillow"),
    ],
)
def test_what_is_done_otherwise_in_special_cases_is_said(old: str, new: str, said: str) -> None:
    found = read_pipeline(PUBLISHED.replace(old, new))
    (remark,) = found.remarks
    assert said in remark
    assert found.geometry is not None


def test_text_that_stores_nothing_says_nothing() -> None:
    for text in ("", "broken [", "model = 3"):
        assert read_pipeline(text) == read_pipeline("")
