"""``riformer-deploy verify parity``."""

from __future__ import annotations

import typer

from riformer_deploy.common.enums import DeviceLayer, Group

from .. import options, output, selection, tolerance_options
from ..tables.parity import print_parity


def parity(
    bundle: options.BundlePath = None,
    backend: options.WithList = None,
    precision: selection.PrecisionsToRun = None,
    rtol: tolerance_options.Rtol = None,
    atol: tolerance_options.Atol = None,
    sqnr_tolerance: tolerance_options.SqnrTolerance = None,
    stage_tolerance: tolerance_options.StageTolerance = None,
    device_layer: options.Layer = DeviceLayer.CUDA_PYTHON,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare every artifact of a bundle with the training form in float64; exit 1 where any failed."""
    from riformer_deploy.api.parity import (
        PARITY_GROUPS,
        GpuOptions,
        Status,
        advice_on,
        changed_tolerances,
        verify_bundle,
    )

    tolerances = changed_tolerances(
        rtol=rtol, atol=atol, min_sqnr_db=sqnr_tolerance, stage_relative_l2=stage_tolerance
    )
    directory = options.chosen_bundle(bundle)
    runners = selection.chosen_runners(backend)
    chosen = {Group(item) for item in runners}
    with output.progress() as progress:
        result = verify_bundle(
            directory,
            tolerances,
            progress,
            gpu=GpuOptions(layer=device_layer, required=options.RunnerChoice.ENGINE in runners),
            groups=tuple(g for g in PARITY_GROUPS if g in chosen or not chosen),
            precisions=selection.chosen_precisions(precision),
        )
    if json:
        output.print_json(result)
    else:
        print_parity(result)
    for text in advice_on(result):
        output.note(text)
        quantized = any(item.precision.is_quantized for item in result.failed)
        if not result.failed:
            output.next_step("bench", directory)
        elif quantized:
            output.next_step("sensitivity", directory)
        else:
            output.next_step("inspect", directory)
    if result.failed or result.status is Status.FAILED:
        raise typer.Exit(1)
