"""``riformer-deploy sensitivity``."""

from __future__ import annotations

from typing import Annotated

import typer

from riformer_deploy.common.enums import Precision

from .. import lowering_options, options, output


def sensitivity(
    bundle: options.BundlePath = None,
    calibration: options.Calibration = None,
    precision: Annotated[
        options.QuantizedChoice, typer.Option(help="What layers are quantised to.")
    ] = options.QuantizedChoice.INT8,
    method: lowering_options.Ranges = None,
    equalize: lowering_options.Equalize = None,
    int8_base: lowering_options.Int8Base = None,
    skip_bad: options.SkipBad = False,
    top: Annotated[int | None, typer.Option(min=1, help="Show so many layers.", show_default="all")] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Rank the layers by what quantising each one alone costs."""
    from riformer_deploy.api.sensitivity import CalibrationSource, LoweringConfig, bundle_sensitivity

    asked = LoweringConfig(
        precision=Precision(precision),
        method=method,
        equalize=equalize,
        int8_base=Precision(int8_base) if int8_base is not None else None,
    )
    images = CalibrationSource(source=calibration, skip_bad=skip_bad)
    with output.progress() as progress:
        report = bundle_sensitivity(options.chosen_bundle(bundle), images, asked, progress)
    for text in report.warnings:
        output.note(text)
    if json:
        output.print_json(report)
        return
    output.print_table(
        f"Cost of {report.precision} on {report.images} images ({report.calibration})",
        ("layer", ">SQNR dB", ">changed classes %"),
        [
            (item.layer, output.number(item.cost.sqnr_db, ".2f"), f"{item.cost.drop_points:.2f}")
            for item in report.layers[:top]
        ],
    )
    worst = [word for item in report.layers[:1] for word in ("--exclude-layers", item.layer)]
    everything = report.everything
    output.say(
        f"Every layer: {output.number(everything.sqnr_db, '.2f')} dB, {everything.drop_points:.2f} % changed"
    )
    given = [] if calibration is None else ["--calibration", calibration]
    output.next_step("export", "CKPT", "--precision", report.precision, *given, *worst)
