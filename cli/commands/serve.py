"""``riformer-deploy serve triton`` and ``serve check``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import Group, Precision

from .. import options, output


class ServedChoice(StrEnum):
    """``serve triton --with``: what Triton runs."""

    ONNX = "onnx"
    ENGINE = "engine"


class PreprocessChoice(StrEnum):
    """``serve triton --preprocess``."""

    PYTHON = "python"
    NONE = "none"


def triton(
    repository: Annotated[
        Path, typer.Option("-o", "--output", metavar="REPO", help="The folder to write.", show_default=False)
    ],
    bundle: options.BundlePath = None,
    backend: Annotated[
        ServedChoice, typer.Option("--with", help="What Triton runs: the ONNX file or a TensorRT plan.")
    ] = ServedChoice.ONNX,
    precision: Annotated[
        Precision | None,
        typer.Option(help="What it computes in.", show_default="the first that can be served"),
    ] = None,
    preprocess: Annotated[
        PreprocessChoice,
        typer.Option(help="python: clients send pictures, or tensors; none: tensors alone."),
    ] = PreprocessChoice.PYTHON,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="the bundle's folder")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a repository that was written before.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a Triton model repository: the model, its preprocessing, and the ensemble of both."""
    from riformer_deploy.api.serve import PicturePreprocessing, TritonOptions, write_triton_repository

    report = write_triton_repository(
        options.chosen_bundle(bundle),
        TritonOptions(
            output=repository,
            group=Group(backend),
            precision=precision,
            preprocess=PicturePreprocessing(preprocess),
            name=name,
            force=force,
        ),
    )
    for text in report.notes:
        output.note(text)
    if json:
        output.print_json(report)
        return
    output.say(f"{report.output}: {', '.join(report.models)}, serving {report.artifact}")
    output.say(f"batches of up to {report.largest_batch}, {report.batching}")
    output.say(report.command)
