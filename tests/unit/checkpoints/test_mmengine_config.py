from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.checkpoints.mmengine_config import contradictions, refused_settings
from riformer_deploy.checkpoints.stored_pipeline import preprocessing_of
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.variants import ARCHITECTURES, VARIANTS

# As mmengine's Config.pretty_text writes a config: sorted, one item to a line, by yapf.
CONFIG = """\
auto_scale_lr = dict(base_batch_size=1024)
bgr_mean = [
    103.53,
    116.28,
    123.675,
]
custom_hooks = [
    dict(momentum=0.0001, priority='ABOVE_NORMAL', type='EMAHook'),
]
data_preprocessor = dict(
    mean=[
        123.675,
        116.28,
        103.53,
    ],
    num_classes=1000,
    std=[
        58.395,
        57.12,
        57.375,
    ],
    to_rgb=True)
dataset_type = 'ImageNet'
default_scope = 'mmpretrain'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
launcher = 'none'
load_from = None
model = dict(
    backbone=dict(arch='{arch}', drop_path_rate=0.1, init_cfg=[
        dict(layer=['Conv2d', 'Linear'], std=0.02, type='TruncNormal'),
        dict(bias=0.0, layer=['GroupNorm'], type='Constant', val=1.0),
    ], type='RIFormer'),
    head=dict(in_channels=512, num_classes=1000, type='LinearClsHead'),
    neck=dict(type='GlobalAveragePooling'),
    type='ImageClassifier')
resume = False
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        backend='pillow',
        edge='short',
        interpolation='bicubic',
        scale={scale},
        type='ResizeEdge'),
    dict(crop_size={side}, type='CenterCrop'),
    dict(type='PackInputs'),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(backend='pillow', interpolation='bicubic', scale=99, type='RandomResizedCrop'),
    dict(crop_size=98, type='CenterCrop'),
]
work_dir = './work_dirs/riformer'
"""
S12 = CONFIG.format(arch="s12", scale=248, side=224)


@pytest.mark.parametrize("name", ["riformer-s12_in1k", "riformer-m36_in1k", "riformer-m48_in1k-384"])
def test_the_published_configs_give_the_published_preprocessing(name: str) -> None:
    variant = VARIANTS[name]
    text = CONFIG.format(arch="any", scale=variant.resize_short_edge_px, side=variant.image_size_px)
    found = preprocessing_of(text)
    assert found == Preprocessing(
        resize_short_edge_px=variant.resize_short_edge_px,
        crop_px=(variant.image_size_px, variant.image_size_px),
        source="checkpoint",
    )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("deploy", ["", ", deploy=True"], ids=["training", "deploy"])
def test_no_setting_of_a_published_config_is_refused(name: str, deploy: str) -> None:
    variant = VARIANTS[name]
    (arch,) = {key for key, shape in ARCHITECTURES.items() if shape == variant.architecture}
    text = CONFIG.format(arch=arch, scale=variant.resize_short_edge_px, side=variant.image_size_px)
    text = text.replace("type='RIFormer'", f"type='RIFormer'{deploy}").replace(
        "in_channels=512", f"in_channels={variant.architecture.embed_dims[-1]}"
    )
    text = text.replace(
        "LinearClsHead'", "LinearClsHead', loss=dict(loss_weight=1.0, type='CrossEntropyLoss')"
    )
    assert refused_settings(text) == []
    assert contradictions(text, variant.architecture) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("to_rgb=True", "to_rgb=False", "BGR"),
        (",\n    to_rgb=True", "", "BGR"),  # mmpretrain's default
        ("to_rgb=True", "to_rgb=True", "RGB"),
    ],
)
def test_the_order_of_channels_is_what_to_rgb_says(old: str, new: str, expected: str) -> None:
    found = preprocessing_of(S12.replace(old, new))
    assert found is not None
    assert found.channel_order == expected


@pytest.mark.parametrize("crop", ["(320, 192)", "[320, 192]"])
def test_a_crop_of_two_sizes_is_width_and_height_as_mmcv_has_it(crop: str) -> None:
    found = preprocessing_of(S12.replace("crop_size=224", f"crop_size={crop}"))
    assert found is not None
    assert found.crop_px == (192, 320)


def test_names_braces_and_negative_numbers_are_understood() -> None:
    text = (
        "mine = [-1, 2.5, 3]\nsteps = [{'type': 'CenterCrop', 'crop_size': 64}]\ntest_pipeline = steps\n"
        "data_preprocessor = {'mean': mine, 'std': (1, 2, 4), 'to_rgb': True}"
    )
    assert preprocessing_of(text) == Preprocessing(
        resize_short_edge_px=None, crop_px=(64, 64), mean=(-1, 2.5, 3), std=(1, 2, 4), source="checkpoint"
    )


def test_a_resize_without_interpolation_is_bilinear_as_mmcvs_default() -> None:
    found = preprocessing_of(S12.replace("interpolation='bicubic',", ""))
    assert found is not None
    assert found.interpolation == "bilinear"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "test_pipeline = [",
        "{'not': 'a config'}",
        "test_pipeline = None",
        "test_pipeline = dict(crop_size=224, type='CenterCrop')",
        "test_pipeline = [dict(type='LoadImageFromFile')]",
        "test_pipeline = [dict(type='CenterCrop', crop_size='224')]",
        "test_pipeline = [dict(type='CenterCrop', crop_size=[224])]",
        "test_pipeline = [dict(type='CenterCrop', crop_size=112 + 112)]",
        "test_pipeline = [None, 3, ...]",
        "x = " + "(" * 100_000,
        "x = " + "-" * 100_000 + "1",
        "x = " + "+".join("1" * 100_000),
        "x = " + "9" * 10_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_text_without_a_readable_pipeline_is_none(text: str) -> None:
    assert preprocessing_of(text) is None


HOSTILE = (
    "__import__('os').system('touch MARKER')",
    "open('MARKER', 'w').close()",
    "[].__class__.__base__.__subclasses__()",
    "dict(mean=__import__('pathlib').Path('MARKER').touch())",
    "f\"{__import__('pathlib').Path('MARKER').touch()}\"",
    "(lambda: open('MARKER', 'w').close())()",
    "[open('MARKER', 'w').close() for _ in [1]]",
)


@pytest.mark.parametrize("code", HOSTILE)
@pytest.mark.parametrize("place", ["{}", "x = {}", "test_pipeline = {}", "test_pipeline = [dict(type={})]"])
def test_nothing_in_the_text_is_executed(tmp_path: Path, code: str, place: str) -> None:
    marker = tmp_path / "marker"
    text = place.format(code.replace("MARKER", str(marker)))
    exec(compile(text, "control", "exec"), {})  # noqa: S102 (the control: executed, it would leave a mark)
    assert marker.exists() == ("MARKER" in code)
    marker.unlink(missing_ok=True)
    assert preprocessing_of(text) is None
    found = preprocessing_of(f"{S12}\n{text.replace('test_pipeline', 'other')}")
    assert found == preprocessing_of(S12)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("edge='short'", "edge='long'"),
        ("type='ResizeEdge'", "type='Resize'"),
        ("scale=248", "scale=124 * 2"),
        ("crop_size=224", "crop_size=-224"),
        ("scale=248", "scale=True"),
        ("123.675,\n        116.28,\n        103.53,\n    ],\n    num", "127.5,\n    ],\n    num"),
        ("58.395,", "255 * 0.229,"),
        ("58.395,", "0,"),
        ("58.395,", "1e999,"),
        ("58.395,", "0x1" + "0" * 400 + ","),
        ("to_rgb=True", "to_rgb=bool(1)"),
    ],
)
def test_a_geometry_or_normalisation_that_is_not_understood_is_not_guessed(old: str, new: str) -> None:
    text = S12.replace(old, new)
    assert text != S12
    assert preprocessing_of(text) is None


def test_a_models_own_data_preprocessor_goes_first_as_in_mmengines_runner() -> None:
    own = "data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=False)"
    found = preprocessing_of(S12.replace("model = dict(", f"model = dict({own}, "))
    assert found is not None
    assert (found.mean, found.std, found.channel_order) == ((1, 2, 3), (4, 5, 6), "BGR")


def test_the_test_dataloaders_pipeline_goes_before_the_variable_that_it_was_made_of() -> None:
    loader = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='CenterCrop', crop_size=96)]))"
    found = preprocessing_of(f"{S12}\n{loader}")
    assert found is not None
    assert (found.crop_px, found.resize_short_edge_px) == ((96, 96), None)


@pytest.mark.parametrize("loader", ["None", "dict(batch_size=8)", "dict(dataset=dict(type='ImageNet'))"])
def test_a_dataloader_without_a_pipeline_leaves_the_variable(loader: str) -> None:
    assert preprocessing_of(f"{S12}\ntest_dataloader = {loader}") == preprocessing_of(S12)


def test_a_dataloaders_pipeline_that_is_not_understood_is_not_guessed() -> None:
    assert preprocessing_of(f"{S12}\ntest_dataloader = dict(dataset=dict(pipeline='steps'))") is None


def test_without_a_data_preprocessor_no_normalisation_is_guessed() -> None:
    text = S12.replace("data_preprocessor = ", "something = ")
    assert text != S12
    assert preprocessing_of(text) is None


def test_a_config_that_describes_the_tensors_is_no_contradiction() -> None:
    s12 = VARIANTS["riformer-s12_in1k"].architecture
    own = "model = dict(backbone=dict(arch=dict(layers=[2, 2, 6, 2], embed_dims=[64, 128, 320, 512])))"
    silent = ("", "model = [", "model = None", "model = dict(backbone=dict(arch='s99'))")
    assert [contradictions(text, s12) for text in (S12, own, *silent)] == [[]] * 6


def test_every_contradiction_of_a_config_is_told() -> None:
    text = S12.replace("num_classes=1000, type", "num_classes=10, type")
    assert text != S12
    found = contradictions(text, VARIANTS["riformer-m36_in1k"].architecture)
    assert [problem.partition(":")[0] for problem in found] == [
        "layers",
        "embed_dims",
        "in_channels of the head",
        "num_classes",
    ]


def test_ratios_of_the_mlps_are_held_against_the_hidden_widths() -> None:
    s12 = VARIANTS["riformer-s12_in1k"].architecture
    text = "model = dict(backbone=dict(arch=dict(mlp_ratios={})))"
    assert contradictions(text.format("[4, 4, 4.0, 4]"), s12) == []
    for ratios in ("[4, 4, 4, 3]", "[4, 4, 4]", "[4, 4, 4, 1e999]", "4", "[4, 4, 4, four]"):
        (found,) = contradictions(text.format(ratios), s12)
        assert found.startswith("mlp_ratios")


def test_a_preprocessor_without_a_mean_does_not_normalise() -> None:
    for text in (
        S12.replace("    mean=[", "    other=["),
        "data_preprocessor = dict(mean=None, std=None)\ntest_pipeline=[dict(type='CenterCrop', crop_size=8)]",
    ):
        found = preprocessing_of(text)
        assert found is not None
        assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))
