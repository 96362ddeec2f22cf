"""The forms of a graph that the GPU suite measures, each a bundle of its own; evidence on them conflicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from riformer_deploy.common.enums import MlpForm, Norm2Form, NormForm, Precision

DIGITS = "digits"
"""The bundle of the trained model."""
SMALL = "riformer-digits"
"""Stands for a published model in a dry run."""
DEFAULT = "default"
_HALF = {"norm_io": Precision.FP16}


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the graphs of one bundle are written.

    Attributes:
        lowering: Fields of :class:`riformer_deploy.bundle.lowering_config.LoweringConfig`.
        precisions: What the bundle holds.
        opset: Version of ONNX's default operator set.
    """

    lowering: dict[str, Any] = field(default_factory=dict)
    precisions: tuple[Precision, ...] = (Precision.FP16,)
    opset: int = 21


FORMS = {
    DEFAULT: Form(precisions=(Precision.FP32, Precision.FP16, Precision.INT8, Precision.FP8)),
    "bf16": Form(precisions=(Precision.BF16,), opset=22),
    "matmul": Form(
        lowering={"mlp": MlpForm.MATMUL}, precisions=(Precision.FP16, Precision.INT8, Precision.FP8)
    ),
    "layer-half": Form(lowering={"norm": NormForm.LAYER, **_HALF}),
    "group-half": Form(lowering={"norm": NormForm.GROUP, **_HALF}),
    "layer-half-matmul": Form(lowering={"norm": NormForm.LAYER, "mlp": MlpForm.MATMUL, **_HALF}),
    "moments": Form(lowering={"norm": NormForm.MOMENTS}),
    "moments-folded": Form(lowering={"norm": NormForm.MOMENTS, "norm2": Norm2Form.FOLDED}),
    "layer": Form(lowering={"norm": NormForm.LAYER}),
    "group": Form(lowering={"norm": NormForm.GROUP}),
}
"""By name, the most promising first."""


def bundle_name(variant: str, form: str) -> str:
    """The folder of a variant's bundle in one form."""
    return f"{variant}.{form}"
