from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from riformer_deploy.checkpoints.config_agreement import architecture_of
from riformer_deploy.checkpoints.config_files import read_config
from riformer_deploy.checkpoints.config_values import UNREAD
from riformer_deploy.checkpoints.mmengine_config import contradictions, refused_settings
from riformer_deploy.checkpoints.stored_pipeline import preprocessing_of
from riformer_deploy.common.errors import OptionError
from riformer_deploy.model.variants import VARIANTS

Write = Callable[..., Path]

DATA = """
data_preprocessor = dict(mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(type='ImageNet', pipeline=test_pipeline))
test_dataloader = val_dataloader
"""
MODEL = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='RIFormer', arch='s12'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=512))
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name=text, ...)``: files ``name.py`` in the test's folder, the last one's path is given."""

    def made(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / f"{name}.py"
            path.write_text(text, encoding="utf-8")
        return path

    return made


def test_a_chain_of_bases_is_one_config(write: Write) -> None:
    path = write(
        data=DATA,
        whole="_base_ = ['data.py', './model.py']\nmodel = dict(head=dict(num_classes=10))",
        model=MODEL,
        leaf="_base_ = 'whole.py'\nmodel = dict(backbone=dict(deploy=True))\n"
        "test_dataloader = dict(dataset=dict(metainfo=dict(classes=['a', 'b'])))\n"
        "mean = _base_.data_preprocessor.mean",
    )
    config = read_config(path)
    assert config.get("model", "backbone") == {"type": "RIFormer", "arch": "s12", "deploy": True}
    assert config.get("mean") == [1, 2, 3]
    assert config.deploy
    assert config.class_names == ("a", "b")
    found = preprocessing_of(config.text)
    assert found is not None
    assert (found.resize_short_edge_px, found.crop_px, found.mean) == (248, (224, 224), (1, 2, 3))
    assert architecture_of(config).num_classes == 10
    assert refused_settings(config.text) == []
    assert contradictions(config.text, architecture_of(config)) == []


def test_mmengine_s_new_style_is_read_without_importing(write: Write) -> None:
    path = write(
        data="from mmpretrain.datasets import CenterCrop\n" + DATA.replace("'CenterCrop'", "CenterCrop"),
        model="from mmpretrain.models import ImageClassifier, RIFormer\n"
        + MODEL.replace("'ImageClassifier'", "ImageClassifier").replace("'RIFormer'", "RIFormer"),
        leaf="""
from mmengine.config import read_base

with read_base():
    from .data import *
    from .model import model as classifier

model = classifier
model.update(dict(backbone=dict(arch='s24'), head=dict(num_classes=7)))
test_dataloader.dataset.pipeline[1].scale = 256
""",
    )
    config = read_config(path)
    assert config.get("model", "backbone", "type") == "mmpretrain.models.RIFormer"
    assert architecture_of(config).layers == (4, 4, 12, 4)
    assert refused_settings(config.text) == []
    found = preprocessing_of(config.text)
    assert found is not None
    assert found.resize_short_edge_px == 256


@pytest.mark.parametrize("name", ["riformer-s12_in1k", "riformer-m48_in1k-384"])
def test_a_published_config_is_known_by_its_name_alone(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    deploy = variant.config.replace("_8xb", "-deploy_8xb")
    for stem, fused in ((variant.config, False), (deploy, True)):
        config = read_config(tmp_path / "configs" / "riformer" / f"{stem}.py")
        assert config.deploy is fused
        assert architecture_of(config) == variant.architecture
        assert refused_settings(config.text) == []
        found = preprocessing_of(config.text)
        assert found is not None
        assert (found.resize_short_edge_px, found.crop_px) == (
            variant.resize_short_edge_px,
            variant.preprocessing.crop_px,
        )


def test_a_published_config_is_a_base_too(write: Write) -> None:
    leaf = write(leaf="_base_ = 'mmpretrain::riformer/riformer-s24_8xb128_in1k.py'\n")
    config = read_config(leaf)
    assert config.get("model", "backbone", "arch") == "s24"
    assert config.get("model", "_scope_") == "mmpretrain"
    assert refused_settings(config.text) == []


def test_nothing_in_a_config_is_executed(write: Write, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    config = read_config(
        write(
            evil=f"open({str(trap)!r}, 'w')\nx = open({str(trap)!r}, 'w')\nimport no_such_module\n"
            f"class A:\n    open({str(trap)!r}, 'w')\ndef f():\n    pass\nmodel = f()\n"
        )
    )
    assert not trap.exists()
    assert (config.get("x"), config.get("model")) == (UNREAD, UNREAD)
    assert refused_settings(config.text) == [
        "model is an expression that is not evaluated; computed here: an ImageClassifier of RIFormer, "
        "GlobalAveragePooling and LinearClsHead"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "_base_ = 'gone.py'",
            r"gone\.py, which .*leaf\.py builds on, cannot be read: there is no such file",
        ),
        ("_base_ = 'leaf.py'", r"leaf\.py builds on itself"),
        ("_base_ = 'leaf.yaml'", "only .py files are read"),
        ("_base_ = other", "the path of a file was expected"),
        ("with read_base():\n    x = 1", "another statement"),
        ("with read_base():\n    from .gone import *", r"gone\.py.*there is no such file"),
        ("with read_base():\n    from " + "." * 99 + "gone import *", "there is no such file"),
        ("with read_base():\n    from mmpretrain.configs.gone import *", "there is no such file"),
        ("model = (", "is not Python"),
        ("x = " + "[" * 250 + "]" * 250, "not Python"),
        ("a = [1]\n" + "a = [a, a]\n" * 40, "holds more than 100,000 values"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(write: Write, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_config(write(leaf=text))


@pytest.mark.parametrize("arch", ["'x99'", "dict(layers=[1])", "unknown()"])
def test_a_config_without_a_shape_says_what_it_needs(write: Write, arch: str) -> None:
    config = read_config(write(leaf=f"model = dict(backbone=dict(arch={arch}), head=dict(num_classes=3))"))
    with pytest.raises(OptionError, match="does not say what shape"):
        architecture_of(config)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "text",
    [
        "a = [0]\n" + "a.extend(a)\n" * 60,
        "a = []\na.append(a)\nb = dict(c=a)\n",
        "a = dict()\na.update(x=a)\na.update(x=a)\n",
        "a = dict(x=1)\n" + "a = dict(x=a, y=a)\n" * 60 + "a.merge(a)\n",
        "a = [0]\n" + "a = [a, a]\n" * 60,
        "a = 's' * 9\n" + "a = 'x" + "y" * 9000 + "'\nb = [a, a, a, a]\n" + "b = [b, b, b, b]\n" * 8,
    ],
    ids=["doubled list", "list in itself", "dictionary in itself", "merged", "spelled", "long text"],
)
def test_a_small_config_of_endless_values_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(OptionError, match=r"c\.py"):
        read_config(tmp_path / "c.py")
