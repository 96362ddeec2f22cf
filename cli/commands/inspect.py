"""``riformer-deploy inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, assert_never

import typer

from .. import options, output
from ..tables.inspect import print_inspection


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint, ONNX file, engine or bundle.")],
    weights: options.Weights = None,
    key: options.Key = None,
    config: options.Config = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Of a bundle: hashes and node counts, too.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what a file is: variant, form, size, cost, inputs and outputs, precision, provenance."""
    from riformer_deploy.api.inspect import (
        BundleInspection,
        CheckpointInspection,
        EngineInspection,
        OnnxInspection,
        inspect_file,
    )
    from riformer_deploy.common.enums import WeightSet
    from riformer_deploy.common.errors import BundleIntegrityError

    chosen = WeightSet(weights) if weights is not None else None
    inspection = inspect_file(file, weights=chosen, key=key, config=config)
    if json:
        output.print_json(inspection)
    else:
        print_inspection(inspection, verbose=verbose)
        match inspection:
            case CheckpointInspection():
                unknown = () if inspection.preprocessing is not None else ("--image-size", "PX")
                output.next_step("export", file, *unknown)
            case BundleInspection():
                output.next_step("verify", "parity", file)
            case EngineInspection() | OnnxInspection():
                output.next_step("verify", "parity", file.parent)
            case _:
                assert_never(inspection)
    if isinstance(inspection, (BundleInspection, EngineInspection)) and not inspection.intact:
        raise typer.Exit(BundleIntegrityError.exit_code)
