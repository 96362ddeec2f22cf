"""Options that several commands share, each defined once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import (
    DeviceLayer,
)

from . import completion, output
from .panels import CHECKPOINT, GENERAL, MEASURING, QUANTIZATION, Rare
from .streams import LIBRARY


class WeightsChoice(StrEnum):
    """``--weights``, for checkpoints that hold a moving average beside the raw weights."""

    AVERAGED = "averaged"
    RAW = "raw"


class RunnerChoice(StrEnum):
    """``--with``: the groups of candidates that predict and that accuracy is measured of."""

    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"
    ENGINE = "engine"


WithList = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar=",".join(RunnerChoice),
        help="What runs the models.",
        show_default="all that the bundle has",
        autocompletion=completion.of_list(RunnerChoice),
    ),
]


class FlavorChoice(StrEnum):
    """``--backend``: a flavor of TensorRT, or the one that fits the machine."""

    AUTO = "auto"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def _set_debug(value: bool) -> bool:
    if value:
        logging.getLogger().setLevel(logging.DEBUG)
        logging.getLogger(LIBRARY).setLevel(logging.NOTSET)  # which -v may have set
    return value


def _refuse_options(path: Path | None) -> Path | None:
    if path is not None and path.suffix == ".toml":
        raise typer.BadParameter(
            f"{path} is a file of options; it stands before the command: riformer-deploy --config {path} ..."
        )
    return path


def chosen_bundle(path: Path | None) -> Path:
    """The bundle that was named, or, where none was, the current folder or the one bundle in it.

    Args:
        path: As named.

    Raises:
        BundleError: None was named, and there is none here, or several.
    """
    from riformer_deploy.bundle.store import find_bundle

    return find_bundle(path)


def chosen_checkpoint(argument: str, mirror: str | None = None) -> Path:
    """The checkpoint that an argument means; what a name or URL means is fetched to the current folder.

    Args:
        argument: A path, a published name or an https URL.
        mirror: A folder with the published files, as a URL; None for OpenMMLab's.

    Raises:
        DownloadError: It cannot be fetched, or is not what its name says.
        OptionError: It looks like a name and is none, or the URL cannot be used.
    """
    from riformer_deploy.api.download import DownloadOptions, named_checkpoint

    with output.counter("bytes") as count:
        return named_checkpoint(argument, DownloadOptions(folder=Path(), mirror=mirror), count)


def split_bundle(arguments: Sequence[str], bundle: Path | None = None) -> tuple[tuple[str, ...], Path | None]:
    """The two parts of ``IMAGE... [BUNDLE]``: the last argument is the bundle if it is a bundle's folder.

    Args:
        arguments: As given.
        bundle: What ``--bundle`` names.

    Returns:
        The pictures, and the bundle or None.

    Raises:
        OptionError: Two bundles are named, or no pictures.
    """
    from riformer_deploy.bundle.store import is_bundle
    from riformer_deploy.common.errors import OptionError

    last = Path(arguments[-1])
    if not (last.is_dir() and is_bundle(last)):
        return tuple(arguments), bundle
    if bundle is not None and not last.samefile(bundle):
        raise OptionError(f"Two bundles are named: {last} and, with --bundle, {bundle}.")
    if len(arguments) == 1:
        raise OptionError(f"{last} is a bundle; no pictures are named.", remedy="Name them before it.")
    return tuple(arguments[:-1]), last


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=GENERAL)
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="A running Ray cluster: this machine's, or that at an address.",
        show_default="this machine alone",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(help="Models that run side by side.", show_default="as many as there is room for"),
]
Cpus = Annotated[int, typer.Option(help="Cores, and threads, of each of these models.")]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show tracebacks and debug messages.",
        callback=_set_debug,
        is_eager=True,
        rich_help_panel=GENERAL,
    ),
]
CheckpointOrName = Annotated[
    str,  # a path would lose a slash of https://
    typer.Argument(
        metavar="CKPT|NAME|URL",
        help="A RIFormer checkpoint, as training left it, or a published name or https URL to fetch.",
        show_default=False,
        autocompletion=completion.published_names,
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
        callback=_refuse_options,
        rich_help_panel=CHECKPOINT,
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
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="BUNDLE",
        help="The bundle.",
        show_default="the last argument, else the current folder's",
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
    typer.Option(
        help="Which weights to take where EMA stored both.",
        show_default="averaged, if stored",
        rich_help_panel=CHECKPOINT,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Which RIFormer to take where the file holds several, such as student.",
        show_default="the only one",
        rich_help_panel=Rare(CHECKPOINT),
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE,...",
        help="Settings of short-edge (px or none), crop, interpolation, mean, std (R/G/B), order.",
        show_default="the model's own",
        rich_help_panel=CHECKPOINT,
    ),
]
Mirror = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A folder with the published files.",
        show_default="OpenMMLab's",
        rich_help_panel=Rare(CHECKPOINT),
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what another checkpoint left there.")]


class QuantizedChoice(StrEnum):
    """``sensitivity --precision``: the precisions that quantise layers."""

    INT8 = "int8"
    FP8 = "fp8"


Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|FILE.npz|random",
        help="Images that int8 and fp8 are calibrated on.",
        rich_help_panel=QUANTIZATION,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Use the rest where part of the calibration images cannot be used.",
        rich_help_panel=Rare(QUANTIZATION),
    ),
]
Layer = Annotated[
    DeviceLayer,
    typer.Option(
        "--device-layer",
        help="Package that engines' device memory comes from.",
        rich_help_panel=Rare(MEASURING),
    ),
]
