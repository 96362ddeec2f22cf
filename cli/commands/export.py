"""``riformer-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import (
    InputForm,
    MlpForm,
    Norm2Form,
    NormForm,
    OutputForm,
    Precision,
    ResidualForm,
    WeightSet,
)

from .. import completion, lowering_options, options, output, parsing, selection, tolerance_options
from ..panels import CHECKPOINT, GRAPH, QUANTIZATION, TOLERANCES, Rare
from ..tables.parity import print_parity


def export(
    checkpoint: options.CheckpointOrName,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="BUNDLE", help="The folder to write.", show_default="CKPT's name"
        ),
    ] = None,
    precision: selection.PrecisionsToExport = None,
    config: options.Config = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="The published model that it must be.",
            autocompletion=completion.published_names,
            rich_help_panel=Rare(CHECKPOINT),
        ),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="The class count that it must have.", rich_help_panel=Rare(CHECKPOINT))
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="PX|HxW", help="Input size.", show_default="the model's own")
    ] = None,
    preprocess: options.Preprocess = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Class names, one a line.",
            show_default="those stored, else ImageNet-1k's",
            rich_help_panel=CHECKPOINT,
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX operator set.", show_default="20", rich_help_panel=GRAPH)
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="dynamic|N", help="Batch size of the graph.", rich_help_panel=GRAPH)
    ] = "dynamic",
    mirror: options.Mirror = None,
    calibration: options.Calibration = None,
    skip_bad: options.SkipBad = False,
    method: lowering_options.Ranges = None,
    equalize: lowering_options.Equalize = None,
    int8_base: lowering_options.Int8Base = None,
    quantize_residual: lowering_options.QuantizeResidual = False,
    residual_form: lowering_options.Residual = None,
    residual_blocks: lowering_options.ResidualBlocks = None,
    exclude_layers: lowering_options.ExcludeLayers = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(
            help="Exclude int8 or fp8 layers until this SQNR (dB) holds.", rich_help_panel=QUANTIZATION
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Exclude int8 or fp8 layers until no more first classes (percent) change.",
            rich_help_panel=QUANTIZATION,
        ),
    ] = None,
    norm_form: lowering_options.Norm = NormForm.INSTANCE,
    norm_io: lowering_options.NormIo = lowering_options.NormIoChoice.FP32,
    mlp: lowering_options.Mlp = MlpForm.CONV,
    norm2: lowering_options.Norm2 = Norm2Form.EXPLICIT,
    io_dtype: Annotated[
        lowering_options.FloatChoice, typer.Option(help="Inputs and outputs.", rich_help_panel=GRAPH)
    ] = lowering_options.FloatChoice.FP32,
    input_form: lowering_options.Input = InputForm.NORMALISED,
    output_form: Annotated[
        str | None,
        typer.Option(
            "--output-form",
            metavar="logits|probabilities|features|topk=K",
            help="What it gives.",
            show_default="logits",
            rich_help_panel=GRAPH,
        ),
    ] = None,
    out_indices: Annotated[
        str | None,
        typer.Option(
            metavar="0,2,4,6",
            help="Give maps with their norms: 0, 2, 4, 6 are the stages.",
            rich_help_panel=GRAPH,
        ),
    ] = None,
    weights: options.Weights = None,
    key: options.Key = None,
    rtol: tolerance_options.Rtol = None,
    atol: tolerance_options.Atol = None,
    sqnr_tolerance: tolerance_options.SqnrTolerance = None,
    stage_tolerance: tolerance_options.StageTolerance = None,
    force: options.Force = False,
    keep_failed: Annotated[
        bool,
        typer.Option(
            "--keep-failed",
            help="Keep what fails parity, in OUTPUT.failed, for inspection.",
            rich_help_panel=Rare(TOLERANCES),
        ),
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Turn a checkpoint into a bundle: fused weights, ONNX, and the parity report that they agree."""
    size = parsing.parse_image_size(image_size) if image_size is not None else None
    fixed = parsing.parse_batch(batch)
    form, topk = parsing.parse_output(output_form or "logits")
    precisions = selection.chosen_precisions(precision)
    positions = parsing.parse_out_indices(out_indices) if out_indices is not None else ()
    if positions and output_form is not None:
        raise typer.BadParameter("--output-form and --out-indices exclude each other: maps are the output")

    from riformer_deploy.api.export import (
        AS_FOUND,
        DEFAULT_OPSET,
        ExportOptions,
        Gate,
        LoweringConfig,
        Status,
        changed_tolerances,
        checked_out_indices,
        export_checkpoint,
        find_variant,
        get_variant,
        parse_changes,
    )

    path = options.chosen_checkpoint(checkpoint, mirror)
    published = find_variant(checkpoint)
    asked = ExportOptions(
        checkpoint=path,
        output=bundle or Path(published.name if published is not None else path.stem),
        config=config,
        variant=get_variant(variant) if variant is not None else None,
        num_classes=num_classes,
        weights=WeightSet(weights) if weights is not None else None,
        key=key,
        image_size_px=size,
        preprocessing=parse_changes(preprocess) if preprocess is not None else AS_FOUND,
        class_names=classes,
        opset=DEFAULT_OPSET if opset is None else opset,
        batch=fixed,
        tolerances=changed_tolerances(
            rtol=rtol, atol=atol, min_sqnr_db=sqnr_tolerance, stage_relative_l2=stage_tolerance
        ),
        force=force,
        keep_failed=keep_failed,
        lowerings=tuple(
            LoweringConfig(
                precision=item,
                norm=norm_form,
                norm_io=Precision(norm_io),
                mlp=mlp,
                norm2=norm2,
                int8_base=Precision(int8_base) if int8_base is not None else None,
                method=method,
                equalize=equalize,
                quantize_residual=quantize_residual or bool(residual_form or residual_blocks),
                residual_form=residual_form or ResidualForm.INPUTS,
                residual_blocks=tuple(residual_blocks or ()),
                exclude_layers=tuple(exclude_layers or ()),
                io=Precision(io_dtype),
                input_form=input_form,
                output_form=OutputForm.MAPS if positions else form,
                topk=topk,
                out_indices=checked_out_indices(positions) if positions else (),
            )
            for item in precisions or (Precision.FP32,)
        ),
        calibration=calibration,
        skip_bad=skip_bad,
        gate=None
        if min_sqnr is None and max_drop is None
        else Gate(min_sqnr_db=min_sqnr, max_drop_points=max_drop),
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
                ("!file", ">size", "!sha256"),
                [(f.path, f"{f.size_bytes / 2**20:.2f} MiB", f.sha256[:16]) for f in report.files],
            )
            output.next_step("bench", report.bundle)
        else:
            kept = f"; what was made is kept in {report.kept}, for inspection" if report.kept else ""
            output.say(f"Parity failed: no bundle was written{kept}.")
    for text in report.advice:
        output.note(text)
    if report.status is Status.FAILED:
        raise typer.Exit(1)
