"""``riformer-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import options, output
from ..tables import print_parity


def export(
    checkpoint: options.Checkpoint,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="BUNDLE", help="The folder to write.", show_default="CKPT's name"
        ),
    ] = None,
    variant: Annotated[str | None, typer.Option(help="The published model that it must be.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="The class count that it must have.")] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="PX|HxW", help="Input size.", show_default="the model's own")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set.", show_default="20")] = None,
    batch: Annotated[str, typer.Option(metavar="dynamic|N", help="Batch size of the graph.")] = "dynamic",
    weights: options.Weights = None,
    rtol: options.Rtol = None,
    atol: options.Atol = None,
    stage_tolerance: options.StageTolerance = None,
    force: options.Force = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Turn a checkpoint into a bundle: fused weights, ONNX, and the proof that they agree."""
    size = options.parse_image_size(image_size) if image_size is not None else None
    fixed = options.parse_batch(batch)

    from riformer_deploy.artifacts import WeightSet
    from riformer_deploy.budgets import changed_budgets
    from riformer_deploy.export import DEFAULT_OPSET
    from riformer_deploy.pipeline import ExportOptions, export_checkpoint
    from riformer_deploy.results import Status
    from riformer_deploy.variants import get_variant

    asked = ExportOptions(
        checkpoint=checkpoint,
        output=bundle or Path(checkpoint.stem),
        variant=get_variant(variant) if variant is not None else None,
        num_classes=num_classes,
        weights=WeightSet(weights) if weights is not None else None,
        image_size_px=size,
        opset=DEFAULT_OPSET if opset is None else opset,
        batch=fixed,
        budgets=changed_budgets(rtol=rtol, atol=atol, stage_relative_l2=stage_tolerance),
        force=force,
    )
    with output.progress() as progress:
        report = export_checkpoint(asked, progress)
    for text in report.notes:
        output.note(text)
    if json:
        output.print_json(report)
    else:
        model = report.model
        name = model.variant or f"custom, layers {list(model.architecture.layers)}"
        height, width = model.preprocessing.crop_px
        output.say(f"{report.source.file_name}: {name}, {report.source.form} form, {height}x{width} px")
        print_parity(report.parity)
        if report.bundle is not None:
            output.print_table(
                f"Bundle {report.bundle}",
                ("file", ">size", "sha256"),
                [(f.path, f"{f.size_bytes / 2**20:.2f} MiB", f.sha256[:16]) for f in report.files],
            )
        else:
            output.say("Parity failed: nothing was written.")
    if report.status is Status.FAILED:
        raise typer.Exit(1)
