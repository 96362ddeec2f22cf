from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from riformer_deploy.checkpoints.allowlists import Group, Irrelevant, Setting
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.mmengine_config import refused_settings
from riformer_deploy.checkpoints.model_settings import MODEL, preprocessor_settings
from riformer_deploy.checkpoints.read_file import read_file
from riformer_deploy.common.errors import CheckpointMismatchError

DIGITS = Path(__file__).parents[3] / "examples" / "riformer-digits.pth"

# Every setting at a value that is computed, none left to its default.
WHOLE: dict[str, Any] = {
    "type": "ImageClassifier",
    "pretrained": None,
    "train_cfg": {"augments": [{"type": "Mixup", "alpha": 0.8}]},
    "init_cfg": None,
    "data_preprocessor": None,
    "_scope_": "mmpretrain",
    "backbone": {
        "type": "RIFormer",
        "arch": {
            "layers": [1, 1, 2, 1],
            "embed_dims": [8, 16, 24, 32],
            "mlp_ratios": [4, 4, 4, 4],
            "layer_scale_init_value": 1e-5,
        },
        "in_channels": 3,
        "norm_cfg": {
            "type": "GN",
            "num_groups": 1,
            "eps": 1e-5,
            "affine": True,
            "requires_grad": True,
            "_scope_": "mmpretrain",
        },
        "act_cfg": {"type": "GELU", "approximate": "none", "_scope_": "mmpretrain"},
        "in_patch_size": 7,
        "in_stride": 4,
        "in_pad": 2,
        "down_patch_size": 3,
        "down_stride": 2,
        "down_pad": 1,
        "drop_rate": 0.0,
        "drop_path_rate": 0.1,
        "out_indices": -1,
        "frozen_stages": -1,
        "init_cfg": [{"type": "TruncNormal", "layer": ["Conv2d", "Linear"], "std": 0.02}],
        "deploy": False,
        "_scope_": "mmpretrain",
    },
    "neck": {"type": "GlobalAveragePooling", "dim": 2, "_scope_": "mmpretrain"},
    "head": {
        "type": "LinearClsHead",
        "num_classes": 7,
        "in_channels": 32,
        "loss": {"type": "CrossEntropyLoss", "use_sigmoid": True},
        "topk": [1, 5],
        "cal_acc": False,
        "init_cfg": {"type": "Normal", "layer": "Linear", "std": 0.01},
        "_scope_": "mmpretrain",
    },
}
PREPROCESSOR: dict[str, Any] = {
    "type": "ClsDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "pad_size_divisor": 1,
    "pad_value": 0,
    "to_rgb": True,
    "to_onehot": False,
    "num_classes": 7,
    "batch_augments": None,
    "_scope_": "mmpretrain",
}
PLAIN = """
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='RIFormer', arch='s12', drop_path_rate=0.1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=512, loss=dict(type='CrossEntropyLoss')))
test_pipeline = [dict(type='CenterCrop', crop_size=224)]
"""
NONSENSE = "nothing of the kind"
"""A value that no setting accepts."""


def _settings(group: Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Setting]]:
    for name, setting in group.settings.items():
        yield (*path, name), setting
        if isinstance(setting, Group):
            yield from _settings(setting, (*path, name))


SETTINGS = [*_settings(MODEL), *_settings(preprocessor_settings(PREPROCESSOR, None), ("preprocessor",))]
GROUPS = [(), ("preprocessor",), *(path for path, setting in SETTINGS if isinstance(setting, Group))]


def _stored(path: tuple[str, ...], value: Any) -> str:
    """The text of the whole config with one value changed."""
    config = copy.deepcopy({**WHOLE, "preprocessor": PREPROCESSOR})
    inner: Any = config
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    preprocessor = config.pop("preprocessor")
    return f"model = {config!r}\ndata_preprocessor = {preprocessor!r}"


def _name(path: tuple[str, ...]) -> str:
    return ".".join(("data_preprocessor", *path[1:]) if path[0] == "preprocessor" else ("model", *path))


def test_the_whole_config_holds_every_setting_and_is_computed() -> None:
    assert refused_settings(_stored(("type",), "ImageClassifier")) == []
    for path, _ in SETTINGS:
        inner: Any = {**WHOLE, "preprocessor": PREPROCESSOR}
        for name in path:
            assert name in inner, path
            inner = inner[name]


@pytest.mark.parametrize("group", GROUPS, ids=lambda path: ".".join(path) or "model")
def test_a_setting_that_is_not_known_is_refused_at_every_level(group: tuple[str, ...]) -> None:
    path = (*group, "surprise")
    (found,) = refused_settings(_stored(path, 3))
    assert found == f"{_name(path)} is 3; this toolkit does not know that setting"


@pytest.mark.parametrize("entry", SETTINGS, ids=lambda entry: ".".join(entry[0]))
@pytest.mark.parametrize("value", [repr(NONSENSE), "None", "build(3)", "{}", "0x1" + "0" * 5000])
def test_every_setting_is_computed_refused_by_name_or_irrelevant(
    entry: tuple[tuple[str, ...], Setting], value: str
) -> None:
    path, setting = entry
    text = _stored(path, "MARK").replace("'MARK'", value)
    found = [problem.split(" is ")[0] for problem in refused_settings(text)]
    if path == ("data_preprocessor",):
        assert found == ([] if value in {"None", "{}"} else ["model.data_preprocessor"])
    elif isinstance(setting, Irrelevant):
        assert found == []
    elif path[-1] == "_scope_":  # the types under it are looked up in that scope, and refused with it
        assert _name(path) in found
    elif path == ("preprocessor", "mean") and value == "None":
        assert found == []  # as in mmpretrain: not normalised
    elif isinstance(setting, Group) and value == "{}":  # what it must hold is missed by name
        required = [
            f"{_name(path)}.{name}"
            for name, inner in setting.settings.items()
            if not isinstance(inner, Irrelevant) and inner.required
        ]
        assert found == required
    else:
        assert found == [_name(path)]


@pytest.mark.parametrize("name", ["type", "backbone", "neck", "head"])
def test_what_mmpretrain_would_not_build_as_we_do_must_be_stored(name: str) -> None:
    model = copy.deepcopy(WHOLE)
    del model[name]
    (found,) = refused_settings(f"model = {model!r}")
    assert found.startswith(f"model.{name} is not stored; computed here: ")


def test_all_refusals_of_a_config_are_told_at_once() -> None:
    text = PLAIN.replace("arch='s12'", "arch='s12', act_cfg=dict(type='SiLU'), in_pad=3, mixer='pool'")
    text = text.replace("LinearClsHead", "MultiLabelLinearClsHead").replace("to_rgb", "bgr_to_rgb")
    assert [problem.split(" is ")[0] for problem in refused_settings(text)] == [
        "model.backbone.act_cfg.type",
        "model.backbone.in_pad",
        "model.backbone.mixer",
        "model.head.type",
        "data_preprocessor.bgr_to_rgb",
    ]


BACKBONE = "backbone=dict(type='RIFormer', "


@pytest.mark.parametrize(
    "setting",
    [
        "deploy=True",
        "out_indices=6",
        "out_indices=[-1]",
        "out_indices=(6,)",
        "out_indices=[0, 2, 4, 6]",
        "in_stride=(4, 4)",
        "down_pad=[1, 1]",
        "act_cfg=dict(type='torch.nn.modules.activation.GELU')",
        "norm_cfg=dict(type='GN', num_groups=1)",
        "norm_cfg=dict(type='GN', num_groups=1, eps=0.00001)",
        "norm_cfg=dict(type='mmcv.GN', num_groups=1)",
        "norm_cfg=dict(num_groups=1, type='torch.nn.modules.normalization.GroupNorm')",
    ],
)
def test_other_spellings_of_what_is_computed_are_accepted(setting: str) -> None:
    text = PLAIN.replace(BACKBONE, f"{BACKBONE}{setting}, ")
    assert text != PLAIN
    assert refused_settings(text) == []


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("act_cfg=dict(type='ReLU')", "act_cfg.type"),
        ("act_cfg=dict(type='mine.GELU')", "act_cfg.type"),
        ("act_cfg=dict(type='GELU', approximate='tanh')", "act_cfg.approximate"),
        ("norm_cfg=dict(type='GN', num_groups=2)", "norm_cfg.num_groups"),
        ("norm_cfg=dict(type='GN')", "norm_cfg.num_groups"),
        ("norm_cfg=dict(type='GN', num_groups=1, eps=1e-6)", "norm_cfg.eps"),
        ("norm_cfg=dict(type='LN2d', num_groups=1)", "norm_cfg.type"),
        ("norm_cfg=dict(type='GN', num_groups=1, num_channels=1)", "norm_cfg.num_channels"),
        ("in_stride=2", "in_stride"),
        ("in_stride=(4, 2)", "in_stride"),
        ("in_pad=3", "in_pad"),
        ("in_patch_size=3", "in_patch_size"),
        ("down_stride=1", "down_stride"),
        ("down_pad=0", "down_pad"),
        ("down_patch_size=2", "down_patch_size"),
        ("in_channels=1", "in_channels"),
        ("out_indices=(2, 4)", "out_indices"),
        ("out_indices=4", "out_indices"),
        ("in_pad=1 + 1", "in_pad"),
        ("**{'in_pad': 3}", ""),
    ],
)
def test_a_backbone_that_computes_otherwise_is_refused(setting: str, name: str) -> None:
    text = PLAIN.replace(BACKBONE, f"{BACKBONE}{setting}, ")
    (found,) = refused_settings(text)
    assert found.split(" is ")[0] == f"model.backbone.{name}".rstrip(".")


@pytest.mark.parametrize(
    "scope", ["mmpretrain.", "mmcls.", "mmpretrain.models.", "mmpretrain.models.backbones.riformer."]
)
@pytest.mark.parametrize("name", ["ImageClassifier", "RIFormer", "GlobalAveragePooling", "LinearClsHead"])
def test_types_may_be_scoped_or_dotted_but_not_somebody_elses(name: str, scope: str) -> None:
    text = PLAIN.replace(f"'{name}'", f"'{scope}{name}'")
    assert text != PLAIN
    assert refused_settings(text) == []
    for other in ("mine.", "torch.", "notmmpretrain.", "mine.mmpretrain."):
        (found,) = refused_settings(PLAIN.replace(f"'{name}'", f"'{other}{name}'"))
        assert f"type is '{other}{name}'" in found


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("ImageClassifier", "TimmClassifier"),
        ("GlobalAveragePooling", "GeneralizedMeanPooling"),
        ("LinearClsHead", "MultiLabelLinearClsHead"),
        ("LinearClsHead", "CSRAClsHead"),
        ("RIFormer", "PoolFormer"),
    ],
)
def test_other_parts_are_refused_by_their_type(part: str, other: str) -> None:
    (found,) = refused_settings(PLAIN.replace(f"'{part}'", f"'{other}'"))
    assert f"type is '{other}'; computed here: mmpretrain's {part}" in found


def test_names_are_looked_up_under_the_default_scope() -> None:
    assert refused_settings(f"{PLAIN}\ndefault_scope = 'mmpretrain'") == []
    under = f"{PLAIN}\ndefault_scope = 'mine'"
    assert len(refused_settings(under)) == 4
    scoped = under
    for name in ("ImageClassifier", "RIFormer", "GlobalAveragePooling", "LinearClsHead"):
        scoped = scoped.replace(f"'{name}'", f"'mmpretrain.{name}'")
    assert refused_settings(scoped) == []
    assert refused_settings(under.replace("model = dict(", "model = dict(_scope_='mmpretrain', ")) == []


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ("pad_size_divisor=32", None),
        ("pad_size_divisor=48", "pad_size_divisor"),
        ("pad_size_divisor=0", "pad_size_divisor"),
        ("size_divisor=1", "size_divisor"),
        ("type='ImgDataPreprocessor'", "type"),
        ("batch_augments=dict(augments=dict(type='Mixup'))", None),
    ],
)
@pytest.mark.parametrize("own", [False, True], ids=["top level", "the model's own"])
def test_the_preprocessor_pads_nothing_and_is_mmpretrains(
    setting: str, refused: str | None, *, own: bool
) -> None:
    text = PLAIN.replace("to_rgb=True", f"to_rgb=True, {setting}")
    if own:
        (line,) = [line for line in text.splitlines() if line.startswith("data_preprocessor = ")]
        line = line.replace(" = ", "=", 1)
        text = text.replace("model = dict(", f"model = dict({line}, ").replace("\ndata_pre", "\nother_pre")
    name = "model.data_preprocessor" if own else "data_preprocessor"
    expected = [] if refused is None else [f"{name}.{refused}"]
    assert [problem.split(" is ")[0] for problem in refused_settings(text)] == expected


def test_padding_is_refused_where_the_crop_is_not_known() -> None:
    text = PLAIN.replace("to_rgb=True", "to_rgb=True, pad_size_divisor=32").replace("CenterCrop", "Resize")
    (found,) = refused_settings(text)
    assert "pad_size_divisor is 32" in found


def test_a_mean_needs_a_deviation() -> None:
    (found,) = refused_settings(PLAIN.replace("std=[58.395, 57.12, 57.375], ", ""))
    assert found.startswith("data_preprocessor.std is not stored")


@pytest.mark.parametrize(
    "line",
    [
        "model['backbone']['in_pad'] = 3",
        "model.update(backbone=None)",
        "if True:\n    model = dict()",
        "model: dict = dict()",
        "first = model = dict()",
        "del model",
        "for model in []: pass",
    ],
)
def test_a_model_that_is_changed_by_code_is_refused_not_believed(line: str) -> None:
    assert refused_settings(f"{PLAIN}\nprint(other)") == []
    (found,) = refused_settings(f"{PLAIN}\n{line}")
    assert found.startswith("model is an expression that is not evaluated; computed here: ")


@pytest.mark.parametrize("text", ["", "\0", "model = [", "model = None", "x = 1", "model = " + "(" * 9999])
def test_text_without_a_model_refuses_nothing(text: str) -> None:
    assert refused_settings(text) == []


def test_a_config_that_repeats_itself_is_refused_in_few_words() -> None:
    lines = ["a0 = ['x' * 3, 'y']", *(f"a{i + 1} = [a{i}, a{i}]" for i in range(200))]
    (found,) = refused_settings("\n".join([*lines, "model = a200"]))
    assert len(found) < 500


def _digits(path: Path, text: str) -> Path:
    """The digits' checkpoint with a config."""
    content: Any = read_file(DIGITS).content
    torch.save({"state_dict": content["state_dict"], "meta": {"cfg": text}}, path)
    return path


def test_the_digits_model_passes_with_its_own_config_and_not_with_another_functions(tmp_path: Path) -> None:
    shape = load_checkpoint(DIGITS).architecture
    arch: dict[str, Any] = {"layers": list(shape.layers), "embed_dims": list(shape.embed_dims)}
    ratios = [hidden / dim for hidden, dim in zip(shape.hidden_dims, shape.embed_dims, strict=True)]
    own = PLAIN.replace("'s12'", repr(arch | {"mlp_ratios": ratios}))
    own = own.replace("512", str(shape.embed_dims[-1])).replace("1000", str(shape.num_classes))
    assert load_checkpoint(_digits(tmp_path / "own.pth", own)).architecture == shape
    for setting in ("act_cfg=dict(type='ReLU')", "norm_cfg=dict(type='GN', num_groups=1, eps=0.1)"):
        text = own.replace(BACKBONE, f"{BACKBONE}{setting}, ")
        with pytest.raises(CheckpointMismatchError, match="describes another function"):
            load_checkpoint(_digits(tmp_path / "other.pth", text))
