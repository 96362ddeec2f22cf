"""The settings of a stored config that are computed here, and how; what is not in these tables is refused.

A setting such as ``act_cfg`` changes what a network computes and leaves no trace in any tensor's shape, so
the tables list what is allowed, not what is known to be wrong. They follow the signatures of mmpretrain 1.x
(``RIFormer``, ``GlobalAveragePooling``, ``LinearClsHead``, ``ImageClassifier``, ``ClsDataPreprocessor``).
"""

from __future__ import annotations

import math
from typing import Any

from riformer_deploy.checkpoints.allowlists import SCOPES, Accepted, ClassName, Group, Irrelevant, is_number
from riformer_deploy.model.variants import ARCHITECTURES


def _values(*values: Any) -> Accepted:
    return Accepted(test=lambda found: found in values, computed=" or ".join(map(repr, values)))


def _size(value: int) -> Accepted:
    """Of a convolution: one number for both directions, or one for each."""
    return Accepted(test=lambda found: found in (value, [value, value]), computed=str(value))


def _gives_last_stage(out_indices: Any) -> bool:
    """Whether the backbone gives the last stage's map, the only one that class scores depend on."""
    found = out_indices if isinstance(out_indices, list) else [out_indices]
    return all(type(index) is int and -7 <= index <= 6 for index in found) and not {-1, 6}.isdisjoint(found)


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
_BY_SHAPE = Irrelevant(
    why="the tensors' shapes say it, and mmengine_config.contradictions compares them with it"
)
_SCOPE = {"_scope_": _values(*SCOPES)}

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
            test=_gives_last_stage, computed="positions with the last stage, -1 or 6, which the head takes"
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

    def pads_nothing(smoothquant_scale: Any) -> bool:
        if smoothquant_scale == 1 or crop_px is None:
            return bool(smoothquant_scale == 1)
        return (
            isinstance(smoothquant_scale, int)
            and smoothquant_scale > 0
            and not any(side % smoothquant_scale for side in crop_px)
        )

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
