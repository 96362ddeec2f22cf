"""Refuses options of a lowering that cannot be honoured, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from riformer_deploy.common.enums import Method, MlpForm, NormForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.export.config import (
    BF16_OPSET,
    FLOAT8_TRANSPOSE_OPSET,
    GROUP_NORM_OPSET,
    HALF_SCALE_OPSET,
    PrecisionOptions,
    quantizable,
    unfit_forms,
)
from riformer_deploy.model.network import RIFormer


def refuse_unused(precisions: Sequence[Precision], options: PrecisionOptions) -> None:
    """Refuse options of quantised precisions that have no effect on any of those asked for.

    Args:
        precisions: The precisions.
        options: How to lower.

    Raises:
        OptionError: There are some; each is listed.
    """
    problems = []
    float8 = Precision.FP8 in precisions
    if Precision.INT8 not in precisions:
        if options.method is not None and not (float8 and options.method is Method.MAX):
            known = "; fp8's ranges are those of the largest values" if float8 else ""
            problems.append(f"--method: {options.method} is for int8{known}")
        if options.int8_base is not None:
            problems.append("--int8-base: it is for int8" + ("; that of fp8 is fp16" if float8 else ""))
        if options.equalize is not None:
            problems.append("--equalize, --no-equalize: the downsampling layers are quantised to int8 alone")
        if options.quantize_residual:
            problems.append("--quantize-residual: the inputs of residual additions can be int8 alone")
    if options.keep and not any(precision.is_quantized for precision in precisions):
        problems.append("--keep: it keeps layers out of int8 and fp8")
    if problems:
        raise OptionError(
            f"These options have no effect on {', '.join(precisions)}.",
            details=problems,
            remedy="Leave them out, or name a precision that they are for.",
        )


def check_opset(precisions: Sequence[Precision], options: PrecisionOptions, opset: int) -> None:
    """See that an operator set can express what is asked for.

    Args:
        precisions: The precisions.
        options: How to lower.
        opset: Version of ONNX's default operator set.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    needs = []
    if options.norm is NormForm.GROUP:
        needs.append(("norm form group", GROUP_NORM_OPSET))
    if Precision.BF16 in precisions:
        needs.append(("bf16 (convolutions in bfloat16)", BF16_OPSET))
    if Precision.INT8 in precisions and options.int8_base is Precision.FP16:
        needs.append(("int8 with fp16 as its base (scales in half)", HALF_SCALE_OPSET))
    if Precision.FP8 in precisions:
        needs.append(("fp8 (float8, with scales in half)", HALF_SCALE_OPSET))
        if options.mlp is MlpForm.MATMUL:
            needs.append(("fp8 with mlp matmul (transposed float8)", FLOAT8_TRANSPOSE_OPSET))
    problems = [f"{what} needs opset {least}" for what, least in needs if opset < least]
    if problems:
        least = max(least for _, least in needs)
        raise OptionError(
            f"Opset {opset} cannot express what is asked for.",
            details=problems,
            remedy=f"Say --opset {least}.",
        )


def check_options(precision: Precision, options: PrecisionOptions, model: RIFormer) -> None:
    """See that a model can be lowered as asked, before any work is done.

    Args:
        precision: The precision.
        options: How to lower.
        model: Holds the layers that ``options.keep`` names.

    Raises:
        OptionError: It cannot; everything wrong is listed.
    """
    layers = quantizable(model)
    classes = model.architecture.num_classes
    unknown = sorted(options.keep - set(layers))
    problems = [f"no layer is called {name}" for name in unknown] + unfit_forms(precision, options)
    if options.output_form is OutputForm.TOPK and options.topk > classes:
        problems.append(f"topk {options.topk} of {classes} classes")
    if options.io is Precision.FP16 and precision is Precision.FP32:
        problems.append("inputs and outputs in fp16 round more than the tolerance of fp32 allows")
    if problems:
        raise OptionError(
            f"{precision} cannot be exported as asked.",
            details=problems,
            remedy=f"Its layers are: {', '.join(layers)}." if unknown else "",
        )
