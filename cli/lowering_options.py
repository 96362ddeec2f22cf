"""Options of how a model is lowered to a graph."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from riformer_deploy.common.enums import InputForm, Method, MlpForm, Norm2Form, NormForm, ResidualForm

from .panels import GRAPH, QUANTIZATION, Rare


class FloatChoice(StrEnum):
    """``--int8-base`` and ``--io-dtype``: the precisions that both may have."""

    FP32 = "fp32"
    FP16 = "fp16"


class NormIoChoice(StrEnum):
    """``--norm-io``."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


Norm = Annotated[
    NormForm,
    typer.Option("--norm-form", help="Operators that compute the norms.", rich_help_panel=Rare(GRAPH)),
]
NormIo = Annotated[
    NormIoChoice,
    typer.Option(
        "--norm-io",
        help="The norms' inputs and outputs: fp32, or what the rest computes in.",
        rich_help_panel=Rare(GRAPH),
    ),
]
Mlp = Annotated[
    MlpForm, typer.Option(help="Operators that compute fc1 and fc2.", rich_help_panel=Rare(GRAPH))
]
Norm2 = Annotated[
    Norm2Form,
    typer.Option(help="norm2 before fc1, or folded into it (not int8 or fp8).", rich_help_panel=Rare(GRAPH)),
]
Input = Annotated[
    InputForm,
    typer.Option("--input", help="Normalised NCHW floats, or NHWC uint8 RGB.", rich_help_panel=GRAPH),
]
QuantizeResidual = Annotated[
    bool,
    typer.Option(
        "--quantize-residual",
        help="Make inputs of residual additions int8 too.",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
Residual = Annotated[
    ResidualForm | None,
    typer.Option(
        "--residual-form",
        help="Which of the additions' tensors; implies it.",
        show_default="inputs",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
ResidualBlocks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BLOCK|STAGE",
        help="Limit --quantize-residual to these; implies it.",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
Ranges = Annotated[
    Method | None,
    typer.Option(
        "--method",
        help="How int8's ranges are chosen; fp8's: max.",
        show_default="mse",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
Int8Base = Annotated[
    FloatChoice | None,
    typer.Option(
        help="What int8 models compute in where they are not int8.",
        show_default="fp32",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
Equalize = Annotated[
    bool | None,
    typer.Option(
        "--equalize/--no-equalize",
        help="Equalise downsampling inputs before quantising them to int8.",
        show_default="equalize",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
ExcludeLayers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER|BLOCK|stem|downsampling|fc1|fc2|head",
        help="What to exclude from int8 and fp8.",
        rich_help_panel=QUANTIZATION,
    ),
]
