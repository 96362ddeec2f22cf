"""The settings of a stored config that are computed here, and how; what is not in these tables is refused.

A setting such as ``act_cfg`` changes what a network computes and leaves no trace in any tensor's shape, so
the tables list what is allowed, not what is known to be wrong. They follow the signatures of mmpretrain 1.x
(``RIFormer``, ``GlobalAveragePooling``, ``LinearClsHead``, ``ImageClassifier``, ``ClsDataPreprocessor``).
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from riformer_deploy.variants import ARCHITECTURES

_OURS = ("mmpretrain", "mmcls")
"""Scopes of the registries that hold RIFormer."""

_SHARED = ("mmcv", "mmengine", "torch")
"""Roots of the layers that every registry falls back to."""

_ENDLESS = 1e30

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 3, 8, 8, 80, 80


@dataclass(frozen=True, kw_only=True)
class Irrelevant:
    """A setting that cannot change what the exported network computes, whatever its value.

    Attributes:
        why: The reason.
    """

    why: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A setting of which some values are computed.

    Attributes:
        test: Whether a value is one of them.
        computed: What is computed here, for a person.
        required: Whether the setting must be stored, since mmpretrain's own default is another value.
    """

    test: Callable[[Any], bool]
    computed: str
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassName:
    """The ``type`` of a group: a registered name, alone or scoped, or a dotted path to the class.

    Attributes:
        names: Accepted classes, without scope or path.
        shared: Whether the class is found under any default scope, as mmcv's layers are.
        required: Whether it must be stored.
    """

    names: tuple[str, ...]
    shared: bool = False
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Group:
    """A dictionary of settings.

    Attributes:
        settings: By name; a name that is not here is refused.
        computed: What is computed here, for a person.
        required: Whether it must be stored.
        shorthand: What may be stored in the dictionary's place.
    """

    settings: Mapping[str, Setting]
    computed: str
    required: bool = False
    shorthand: Callable[[Any], bool] = field(default=lambda _: False)


Setting = Irrelevant | Accepted | ClassName | Group


def _values(*values: Any) -> Accepted:
    return Accepted(test=lambda found: found in values, computed=" or ".join(map(repr, values)))


def _size(value: int) -> Accepted:
    """Of a convolution: one number for both directions, or one for each."""
    return Accepted(test=lambda found: found in (value, [value, value]), computed=str(value))


def is_number(value: Any) -> bool:
    """Whether a literal is a finite number that a network may hold: a file may spell any other."""
    return type(value) in (int, float) and abs(value) < _ENDLESS


def _is_triple(value: Any, *, positive: bool = False) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(is_number(v) and (v > 0 or not positive) for v in value)
    )


_BOOLEAN = Accepted(test=lambda found: found in (True, False), computed="True or False")
_BOOLEAN_TRUE = Accepted(test=lambda found: found is True, computed="True")
_TRAINING = Irrelevant(why="only training uses it")
_INITIAL = Irrelevant(why="initial values are replaced by the stored weights")
_BY_SHAPE = Irrelevant(why="the tensors' shapes tell it, and mmconfig.contradictions compares them with it")
_SCOPE = {"_scope_": _values(*_OURS)}

_ARCH = Group(
    computed="the name of a published shape, or layers, embed_dims and mlp_ratios",
    # mmpretrain's names; what they stand for is compared with the tensors' shapes
    shorthand=lambda found: isinstance(found, str) and found.lower() in ARCHITECTURES,
    settings={
        "layers": _BY_SHAPE,
        "embed_dims": _BY_SHAPE,
        "mlp_ratios": _BY_SHAPE,
        "layer_scale_init_value": _INITIAL,
    },
)

_NORM = Group(
    computed="GN with num_groups=1 and eps=1e-05",
    settings={
        "type": ClassName(names=("GN", "GroupNorm"), shared=True),
        "num_groups": Accepted(test=lambda found: found == 1, computed="1", required=True),
        "eps": Accepted(test=lambda found: is_number(found) and math.isclose(found, 1e-5), computed="1e-05"),
        "affine": _BOOLEAN_TRUE,
        "requires_grad": _TRAINING,
        **_SCOPE,
    },
)

_ACTIVATION = Group(
    computed="GELU, exact",
    settings={
        "type": ClassName(names=("GELU",), shared=True),
        "approximate": _values("none"),
        **_SCOPE,
    },
)

_BACKBONE = Group(
    computed="RIFormer",
    required=True,
    settings={
        "type": ClassName(names=("RIFormer",)),
        "arch": _ARCH,
        "in_channels": _values(3),
        "norm_cfg": _NORM,
        "act_cfg": _ACTIVATION,
        "in_patch_size": _size(7),
        "in_stride": _size(4),
        "in_pad": _size(2),
        "down_patch_size": _size(3),
        "down_stride": _size(2),
        "down_pad": _size(1),
        "out_indices": Accepted(
            test=lambda found: found in (-1, 6, [-1], [6]), computed="-1, the last stage alone"
        ),
        "deploy": Accepted(
            test=lambda found: found in (True, False),
            computed="True or False: the tensors' keys tell the form, and both compute the same",
        ),
        "drop_rate": _TRAINING,
        "drop_path_rate": _TRAINING,
        "frozen_stages": _TRAINING,
        "init_cfg": _INITIAL,
        **_SCOPE,
    },
)

_NECK = Group(
    computed="GlobalAveragePooling",
    required=True,
    settings={"type": ClassName(names=("GlobalAveragePooling",)), "dim": _values(2), **_SCOPE},
)

_HEAD = Group(
    computed="LinearClsHead, whose scores mmpretrain makes with a softmax",
    required=True,
    settings={
        "type": ClassName(names=("LinearClsHead",)),
        "num_classes": _BY_SHAPE,
        "in_channels": _BY_SHAPE,
        # CrossEntropyLoss(use_sigmoid=True) too: LinearClsHead predicts with a softmax whatever the loss
        "loss": _TRAINING,
        "topk": _TRAINING,
        "cal_acc": _TRAINING,
        "init_cfg": _INITIAL,
        **_SCOPE,
    },
)

MODEL = Group(
    computed="an ImageClassifier of RIFormer, GlobalAveragePooling and LinearClsHead",
    settings={
        "type": ClassName(names=("ImageClassifier",)),
        "backbone": _BACKBONE,
        "neck": _NECK,
        "head": _HEAD,
        "pretrained": _INITIAL,
        "init_cfg": _INITIAL,
        "train_cfg": _TRAINING,
        "data_preprocessor": Irrelevant(why="it has a table of its own"),
        **_SCOPE,
    },
)


def preprocessor_settings(stored: Any, crop_px: tuple[int, int] | None) -> Group:
    """The table of the data preprocessor.

    Args:
        stored: The data preprocessor; with ``mean`` it needs ``std``.
        crop_px: Height and width of the pictures that it gets; None where they are not known.
    """
    normalises = isinstance(stored, dict) and stored.get("mean") is not None

    def pads_nothing(divisor: Any) -> bool:
        if divisor == 1 or crop_px is None:
            return bool(divisor == 1)
        return isinstance(divisor, int) and divisor > 0 and not any(side % divisor for side in crop_px)

    return Group(
        computed="ClsDataPreprocessor",
        settings={
            "type": ClassName(names=("ClsDataPreprocessor",), required=False),
            "mean": Accepted(
                test=lambda found: found is None or _is_triple(found),
                computed="three finite numbers, or None",
            ),
            "std": Accepted(
                test=lambda found: not normalises or _is_triple(found, positive=True),
                computed="three positive numbers",
                required=normalises,
            ),
            "to_rgb": _BOOLEAN,
            "pad_size_divisor": Accepted(
                test=pads_nothing, computed="no padding: 1, or a divisor of the test pipeline's crop"
            ),
            "pad_value": Irrelevant(why="nothing is padded"),
            "num_classes": _TRAINING,
            "to_onehot": _TRAINING,
            "batch_augments": _TRAINING,
            **_SCOPE,
        },
    )


def shown(value: Any) -> str:
    """A stored value for a message: short, however deep, long or self-repeating it is."""
    if isinstance(value, int) and abs(value) >= _ENDLESS:
        return "a number of too many digits"  # Python refuses to spell those
    return _SHORT.repr(value)


def refusals(found: Any, setting: Setting, *, name: str, scope: str | None) -> list[str]:
    """What of a stored setting, and of all within it, is not computed here.

    Args:
        found: The stored value, of literals alone.
        setting: What is computed.
        name: The setting's, in full.
        scope: mmengine's default scope, under which names without a scope of their own are looked up.

    Returns:
        A sentence for each, with what was found and what is computed.
    """
    match setting:
        case Irrelevant():
            fits = True
        case Accepted(test=test):
            fits = test(found)
        case ClassName():
            fits = _is_class(found, setting, scope)
        case Group() if isinstance(found, dict):
            return _within(found, setting, name=name, scope=scope)
        case Group(shorthand=shorthand):
            fits = shorthand(found)
        case _:
            assert_never(setting)
    return [] if fits else [f"{name} is {shown(found)}; computed here: {_computed(setting)}"]


def _within(found: dict[Any, Any], group: Group, *, name: str, scope: str | None) -> list[str]:
    inner = found.get("_scope_", scope)
    problems = []
    for key, value in found.items():
        setting = group.settings.get(key)
        if setting is None:
            word = key if str(key).isidentifier() else shown(key)
            problems.append(f"{name}.{word} is {shown(value)}; this toolkit does not know that setting")
        else:
            problems += refusals(value, setting, name=f"{name}.{key}", scope=inner)
    return problems + [
        f"{name}.{key} is not stored; computed here: {_computed(setting)}"
        for key, setting in group.settings.items()
        if key not in found and not isinstance(setting, Irrelevant) and setting.required
    ]


def _is_class(found: Any, setting: ClassName, scope: str | None) -> bool:
    if not isinstance(found, str):
        return False
    path, _, last = found.rpartition(".")
    root = path.partition(".")[0]
    if last not in setting.names:
        return False
    if not root:  # a registry of another scope would look among its own classes first
        return setting.shared or scope in (None, "mmengine", *_OURS)
    return root in _OURS or (setting.shared and root in _SHARED)


def _computed(setting: Setting) -> str:
    match setting:
        case Irrelevant(why=why):
            return why
        case Accepted(computed=computed) | Group(computed=computed):
            return computed
        case ClassName(names=names):
            return f"mmpretrain's {names[0]}" if not setting.shared else names[0]
        case _:
            assert_never(setting)
