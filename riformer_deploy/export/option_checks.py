"""Refuses configs that cannot be honoured, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from riformer_deploy.bundle.layer_groups import unmatched
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import LayerGroup, MlpForm, NormForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer

GROUP_NORM_OPSET = 21
"""The first operator set whose GroupNormalization has one scale per channel."""


BF16_OPSET = 22
"""The first whose Conv takes bfloat16."""


HALF_SCALE_OPSET = 19
"""The first whose QuantizeLinear takes half, and the first with float8."""


FLOAT8_TRANSPOSE_OPSET = 21
"""The first whose Transpose takes float8: ONNX Runtime moves it there past QuantizeLinear."""


def refuse_unused(configs: Sequence[LoweringConfig]) -> None:
    """Refuse options of quantised precisions that have no effect on any of those asked for.

    Args:
        configs: One for each precision.

    Raises:
        OptionError: There are some; each is listed.
    """
    precisions = [config.precision for config in configs]
    float8 = Precision.FP8 in precisions
    method = next((config.method for config in configs if config.method is not None), None)
    known = "; fp8's ranges are those of the largest values" if float8 else ""
    explanations = {
        "method": f"--method: {method} is for int8{known}",
        "int8_base": "--int8-base: it is for int8" + ("; that of fp8 is fp16" if float8 else ""),
        "equalize": "--equalize, --no-equalize: the downsampling layers are quantised to int8 alone",
        "quantize_residual": "--quantize-residual, --residual-form, --residual-blocks: the tensors of "
        "residual additions can be int8 alone",
        "exclude_layers": "--exclude-layers: it excludes layers from int8 and fp8",
    }
    heeded = [config.heeded() for config in configs]
    problems = [
        text for name, text in explanations.items() if _chosen(configs, name) and not _chosen(heeded, name)
    ]
    if problems:
        raise OptionError(
            f"These options have no effect on {', '.join(precisions)}.",
            details=problems,
            remedy="Leave them out, or name a precision that they are for.",
        )


def _chosen(configs: Sequence[LoweringConfig], name: str) -> bool:
    """Whether a field of any of the configs is not as it is by default."""
    return any(getattr(config, name) != getattr(LoweringConfig(), name) for config in configs)


def check_opset(configs: Sequence[LoweringConfig], opset: int) -> None:
    """See that an operator set can express what is asked for.

    Args:
        configs: One for each precision.
        opset: Version of ONNX's default operator set.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    needs = dict(need for config in configs for need in _needed_opsets(config))
    problems = [f"{what} needs opset {least}" for what, least in needs.items() if opset < least]
    if problems:
        least = max(needs.values())
        raise OptionError(
            f"Opset {opset} cannot express what is asked for.",
            details=problems,
            remedy=f"Say --opset {least}.",
        )


def least_opset(config: LoweringConfig) -> int:
    """The oldest operator set that can express a config; 0 where any can.

    Args:
        config: How to lower.
    """
    return max((least for _, least in _needed_opsets(config)), default=0)


def _needed_opsets(config: LoweringConfig) -> list[tuple[str, int]]:
    """What of a config not every operator set can express, each with the first that can."""
    needs = []
    if config.norm is NormForm.GROUP:
        needs.append(("norm form group", GROUP_NORM_OPSET))
    if config.precision is Precision.BF16:
        needs.append(("bf16 (convolutions in bfloat16)", BF16_OPSET))
    if config.precision is Precision.INT8 and config.base is Precision.FP16:
        needs.append(("int8 with fp16 as its base (scales in half)", HALF_SCALE_OPSET))
    if config.precision is Precision.FP8:
        needs.append(("fp8 (float8, with scales in half)", HALF_SCALE_OPSET))
        if config.mlp is MlpForm.MATMUL:
            needs.append(("fp8 with mlp matmul (transposed float8)", FLOAT8_TRANSPOSE_OPSET))
    return needs


def check_config(config: LoweringConfig, model: RIFormer) -> None:
    """See that a model can be lowered as asked, before any work is done.

    Args:
        config: How to lower.
        model: Whose layers ``config.exclude_layers`` names.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    layers = quantizable(model)
    classes = model.architecture.num_classes
    blocks = [name for stage in model.architecture.block_names for name in stage]
    unknown = unmatched(config.exclude_layers, layers)
    astray = unmatched(config.residual_blocks, blocks)
    problems = [f"no layer, block, stage or group is called {name}" for name in unknown]
    problems += [f"no block or stage is called {name}" for name in astray]
    if config.output_form is OutputForm.TOPK and config.topk > classes:
        problems.append(f"topk {config.topk} of {classes} classes")
    if absent := sorted(set(config.out_indices) - set(model.backbone.out_indices)):
        problems.append(f"the weights hold no norm for the maps at {', '.join(map(str, absent))}")
    if config.io is Precision.FP16 and config.precision is Precision.FP32:
        problems.append("inputs and outputs in fp16 round more than the tolerance of fp32 allows")
    if problems:
        raise OptionError(
            f"{config.precision} cannot be exported as asked.",
            details=problems,
            remedy=_remedy(layers if unknown else (), blocks if astray else (), absent),
        )


def _remedy(layers: Sequence[str], blocks: Sequence[str], absent: Sequence[int]) -> str:
    told = []
    if layers:
        told.append(f"Its layers are: {', '.join(layers)}; groups: {', '.join(LayerGroup)}.")
    if blocks:
        told.append(f"Its blocks are: {', '.join(blocks)}.")
    if absent:
        told.append(
            "Export what was trained with these maps; get_model(..., out_indices=...) gives such norms "
            "initial values, which have to be trained."
        )
    return " ".join(told)
