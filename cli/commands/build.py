"""``riformer-deploy build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from riformer_deploy.common.enums import HardwareCompatibility

from .. import options, output, parsing, selection
from ..panels import ENGINE, Rare
from ..tables.build import print_build


def build(
    bundle: options.BundlePath = None,
    precision: selection.PrecisionsToBuild = None,
    backend: Annotated[options.FlavorChoice, typer.Option(help="The flavor of TensorRT.")] = (
        options.FlavorChoice.AUTO
    ),
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MIN:OPT:MAX", help="Batch sizes of an optimisation profile.", show_default="1:8:32"
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="PX|HEIGHTxWIDTH",
            help="The size that the models must have.",
            show_default="theirs",
            rich_help_panel=Rare(ENGINE),
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most scratch memory, such as 512MiB or 4GiB.",
            show_default="all there is",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    opt_level: Annotated[
        int | None, typer.Option(help="Optimisation level, 0 to 5.", show_default="3", rich_help_panel=ENGINE)
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Kernel timings to use and keep (TensorRT).", rich_help_panel=Rare(ENGINE)
        ),
    ] = None,
    hardware_compat: Annotated[
        HardwareCompatibility,
        typer.Option(help="Other GPUs that must run it (TensorRT).", rich_help_panel=ENGINE),
    ] = HardwareCompatibility.NONE,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let newer versions load it.", rich_help_panel=ENGINE)
    ] = False,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X.Y|current",
            help="Compute capabilities to build for, or that of the GPU here (TensorRT-RTX).",
            show_default="the builder's own choice",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Let its weights be replaced.", rich_help_panel=Rare(ENGINE))
    ] = False,
    tf32: Annotated[
        bool,
        typer.Option(
            "--tf32/--no-tf32",
            help="Let float32 be computed in TF32; not exact.",
            rich_help_panel=Rare(ENGINE),
        ),
    ] = False,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Print the equivalent trtexec lines; build nothing.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Build TensorRT engines of a bundle's models; TensorRT-RTX needs no GPU for it."""
    from riformer_deploy.api.build import (
        BuildOptions,
        BuildSettings,
        TensorRTFlavor,
        build_engines,
        trtexec_lines,
    )

    asked = BuildOptions(
        precisions=selection.chosen_precisions(precision),
        backend=None if backend is options.FlavorChoice.AUTO else TensorRTFlavor(backend),
        profiles=tuple(parsing.parse_profile(text) for text in profile or ()),
        image_size_px=None if image_size is None else parsing.parse_image_size(image_size),
        settings=BuildSettings(
            workspace_bytes=None if workspace is None else parsing.parse_size(workspace),
            optimization_level=opt_level,
            tf32=tf32,
            refittable=refittable,
            version_compatible=version_compatible,
            hardware_compatibility=hardware_compat,
            compute_capabilities=tuple(compute_capability or ()),
        ),
        timing_cache=timing_cache,
    )
    directory = options.chosen_bundle(bundle)
    if print_trtexec:
        lines = trtexec_lines(directory, asked)
        if json:
            output.print_json({"lines": lines})
        else:
            output.say("\n".join(lines))
        return
    with output.progress() as progress:
        report = build_engines(directory, asked, progress)
    if json:
        output.print_json(report)
    else:
        print_build(report)
        output.next_step("verify", "parity", directory)
    for warning in report.warnings:
        output.note(warning)
    for text in report.dropped:
        output.note(f"dropped from the bundle: {text}")
