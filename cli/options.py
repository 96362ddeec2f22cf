"""Options that several commands share, each defined once."""

from __future__ import annotations

import logging
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from riformer_deploy.common.enums import (
    DeviceLayer,
    InputForm,
    Method,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
)

if TYPE_CHECKING:
    from riformer_deploy.bundle.engine_metadata import BatchProfile


class WeightsChoice(StrEnum):
    """``--weights``, for checkpoints that hold a moving average beside the raw weights."""

    AVERAGED = "averaged"
    RAW = "raw"


class Backend(StrEnum):
    """``--with``: what runs a model."""

    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"
    ENGINE = "engine"


class EngineBackend(StrEnum):
    """``--backend``."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def _set_debug(value: bool) -> bool:
    if value:
        logging.getLogger().setLevel(logging.DEBUG)
    return value


def parse_image_size(text: str) -> tuple[int, int]:
    """``224`` or ``256x192`` as (height, width) in pixels.

    Raises:
        typer.BadParameter: The text is neither.
    """
    match = re.fullmatch(r"([0-9]+)(?:[xX]([0-9]+))?", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size; say 224 or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def parse_batch(text: str) -> int | None:
    """``dynamic`` as None, or a number.

    Raises:
        typer.BadParameter: The text is neither.
    """
    if text == "dynamic":
        return None
    if not re.fullmatch(r"-?[0-9]+", text):
        raise typer.BadParameter(f"{text!r} is not a batch size; say dynamic or a number")
    return int(text)


_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """``512MiB``, ``4GiB`` or a number of bytes as bytes.

    Raises:
        typer.BadParameter: The text is none of these.
    """
    match = re.fullmatch(r"([0-9]+)\s*([a-zA-Z]*)", text)
    if match is None or match[2].upper() not in _UNITS:
        raise typer.BadParameter(f"{text!r} is not a size; say 512MiB, 4GiB or a number of bytes")
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_profile(text: str) -> BatchProfile:
    """``MIN:OPT:MAX`` or one number as a profile of batch sizes.

    Raises:
        typer.BadParameter: The text is neither, or not in order.
    """
    from riformer_deploy.bundle.engine_metadata import BatchProfile

    match = re.fullmatch(r"([0-9]+)(?::([0-9]+):([0-9]+))?", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a profile; say MIN:OPT:MAX, such as 1:8:32, or one number")
    low, middle, high = (int(number or match[1]) for number in match.groups())
    if not 1 <= low <= middle <= high:
        raise typer.BadParameter(f"{text!r} is not a profile: it must be 1 <= MIN <= OPT <= MAX")
    return BatchProfile(minimum=low, optimum=middle, maximum=high)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks and debug messages.", callback=_set_debug, is_eager=True),
]
Checkpoint = Annotated[
    Path,
    typer.Argument(metavar="CKPT", help="A RIFormer checkpoint, as training left it.", show_default=False),
]
CheckpointOrName = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT|NAME",
        help="A RIFormer checkpoint, as training left it, or a published name, which is fetched.",
        show_default=False,
    ),
]
ConfigArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="mmengine's config file of the checkpoint; a published one need not be there.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.py",
        help="mmengine's config file of the checkpoint; parsed, never executed.",
        show_default="the one stored in it",
    ),
]
BundlePath = Annotated[
    Path | None,
    typer.Argument(
        metavar="BUNDLE",
        help="A bundle; by default the current folder, or the one bundle in it.",
        show_default=False,
    ),
]
Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="Pictures, folders or quoted patterns; last, if need be, the bundle.",
        show_default=False,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="Labelled pictures: ImageNet, class folders or .npz.", show_default=False
    ),
]
Split = Annotated[str, typer.Option(help="Part of the dataset.")]
Limit = Annotated[int | None, typer.Option(help="So many pictures, spread evenly.", show_default="all")]
BatchOfPictures = Annotated[int, typer.Option("--batch", help="Pictures at a time.")]
Workers = Annotated[int | None, typer.Option(help="Threads that decode.", show_default="one a core")]
Weights = Annotated[
    WeightsChoice | None,
    typer.Option(help="Which weights to take where EMA stored both.", show_default="averaged, if stored"),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE,...",
        help="Settings of short-edge (px or none), crop, interpolation, mean, std (R/G/B), order.",
        show_default="the model's own",
    ),
]
Mirror = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A folder with the published files.", show_default="OpenMMLab's"),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what another checkpoint left there.")]
Rtol = Annotated[float | None, typer.Option(help="Relative tolerance of outputs.", show_default="1e-4")]
Atol = Annotated[float | None, typer.Option(help="Absolute tolerance of outputs.", show_default="1e-5")]
SqnrTolerance = Annotated[
    float | None,
    typer.Option(help="Least SQNR of outputs, dB.", show_default="fp16 56, bf16 38, int8 30, fp8 25"),
]
StageTolerance = Annotated[
    float | None,
    typer.Option(
        help="Largest relative L2 error of a stage.",
        show_default="fp32 1e-5, fp16 2e-3, bf16 1.6e-2, int8 5e-2, fp8 5.6e-2",
    ),
]


class FloatChoice(StrEnum):
    """``--int8-base`` and ``--io-dtype``: the precisions that both may have."""

    FP32 = "fp32"
    FP16 = "fp16"


class QuantizedChoice(StrEnum):
    """``sensitivity --precision``: the precisions that quantise layers."""

    INT8 = "int8"
    FP8 = "fp8"


class NormIoChoice(StrEnum):
    """``--norm-io``."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


def parse_output(text: str) -> tuple[OutputForm, int]:
    """``logits``, ``probabilities``, ``features`` or ``topk=K`` as the form and K (5 where it has none).

    Raises:
        typer.BadParameter: The text is none of these.
    """
    if text in {OutputForm.LOGITS, OutputForm.PROBABILITIES, OutputForm.FEATURES}:
        return OutputForm(text), 5
    match = re.fullmatch(r"topk=([1-9][0-9]*)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no output; say logits, probabilities, features or topk=K")
    return OutputForm.TOPK, int(match[1])


Calibration = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|FILE.npz|random", help="Images that int8 and fp8 are calibrated on."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Use the rest where part of the calibration images cannot be used.")
]
Layer = Annotated[
    DeviceLayer, typer.Option("--device-layer", help="Package that engines' device memory comes from.")
]
Precisions = Annotated[
    list[Precision] | None, typer.Option("--precision", help="What to export.", show_default="fp32")
]
Norm = Annotated[NormForm, typer.Option("--norm-form", help="Operators that compute the norms.")]
NormIo = Annotated[
    NormIoChoice,
    typer.Option("--norm-io", help="The norms' inputs and outputs: fp32, or what the rest computes in."),
]
Mlp = Annotated[MlpForm, typer.Option(help="Operators that compute fc1 and fc2.")]
Norm2 = Annotated[Norm2Form, typer.Option(help="norm2 before fc1, or folded into it (not int8 or fp8).")]
Ranges = Annotated[
    Method | None,
    typer.Option("--method", help="How int8's ranges are chosen; fp8's: max.", show_default="mse"),
]
Input = Annotated[InputForm, typer.Option("--input", help="Normalised NCHW floats, or NHWC uint8 RGB.")]
Int8Base = Annotated[
    FloatChoice | None,
    typer.Option(help="What int8 models compute in where they are not int8.", show_default="fp32"),
]
Equalize = Annotated[
    bool | None,
    typer.Option(
        "--equalize/--no-equalize",
        help="Equalise downsampling inputs before quantising them to int8.",
        show_default="equalize",
    ),
]
QuantizeResidual = Annotated[
    bool, typer.Option("--quantize-residual", help="Make inputs of residual additions int8 too.")
]
Keep = Annotated[list[str] | None, typer.Option(metavar="LAYER", help="A layer to keep out of int8 and fp8.")]
