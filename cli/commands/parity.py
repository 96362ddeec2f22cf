"""``riformer-deploy verify parity``."""

from __future__ import annotations

import typer

from riformer_deploy.common.enums import DeviceLayer

from .. import options, output
from ..tables.parity import print_parity


def parity(
    bundle: options.BundlePath = None,
    rtol: options.Rtol = None,
    atol: options.Atol = None,
    sqnr_tolerance: options.SqnrTolerance = None,
    stage_tolerance: options.StageTolerance = None,
    device_layer: options.Layer = DeviceLayer.CUDA_PYTHON,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare every artifact of a bundle with the training form in float64; exit 1 where any failed."""
    from riformer_deploy.api.parity import GpuOptions, Status, advice_on, changed_tolerances, verify_bundle

    tolerances = changed_tolerances(
        rtol=rtol, atol=atol, min_sqnr_db=sqnr_tolerance, stage_relative_l2=stage_tolerance
    )
    with output.progress() as progress:
        result = verify_bundle(
            options.chosen_bundle(bundle), tolerances, progress, gpu=GpuOptions(layer=device_layer)
        )
    if json:
        output.print_json(result)
    else:
        print_parity(result)
    for text in advice_on(result):
        output.note(text)
    if result.failed or result.status is Status.FAILED:
        raise typer.Exit(1)
