"""``riformer-deploy bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from riformer_deploy.common.enums import Baselines, DeviceLayer, Group

from .. import options, output
from ..tables.latency import print_latency


def bench(
    bundle: options.BundlePath = None,
    torch: Annotated[
        bool, typer.Option("--torch", help="PyTorch: each form, and the folded one compiled.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX Runtime.")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="OpenVINO.")] = False,
    engine: Annotated[
        bool, typer.Option("--engine", help="TensorRT engines, and what they are measured against on a GPU.")
    ] = False,
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes.", show_default="1, 8")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds per batch size.", show_default="10")] = None,
    repeats: Annotated[int | None, typer.Option(help="Timed calls per turn.", show_default="3")] = None,
    warmup: Annotated[int | None, typer.Option(help="Untimed calls first.", show_default="3")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="every core")] = None,
    compile_torch: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Time torch.compile, which takes a while.")
    ] = True,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graph/--no-cuda-graph", help="Launch engines as CUDA graphs.", show_default="both"
        ),
    ] = None,
    baselines: Annotated[
        Baselines | None,
        typer.Option(
            help="With --engine: ways of running PyTorch on the GPU. none; quick: they compile within a "
            "minute; strong: the few strongest, minutes; all: many minutes.",
            show_default="strong",
        ),
    ] = None,
    device_layer: options.Layer = DeviceLayer.CUDA_PYTHON,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Time a bundle's models side by side: those of the kinds named, or all that it has."""
    from riformer_deploy.api.bench import BenchOptions, GpuOptions, bench_bundle
    from riformer_deploy.common.errors import OptionError

    default = BenchOptions()
    asked = BenchOptions(
        batches=tuple(batch) if batch else default.batches,
        rounds=default.rounds if rounds is None else rounds,
        repeats=default.repeats if repeats is None else repeats,
        warmup=default.warmup if warmup is None else warmup,
        threads=threads,
    )
    graphs = GpuOptions().cuda_graphs if cuda_graph is None else (cuda_graph,)
    gpu = GpuOptions(
        layer=device_layer,
        cuda_graphs=graphs,
        required=engine,
        baselines=baselines or GpuOptions().baselines,
    )
    groups = options.chosen_groups(
        torch=torch, onnx=onnx, openvino=openvino, engine=engine, compiled=compile_torch
    )
    if baselines is not None and Group.GPU not in groups:
        raise OptionError(
            f"--baselines {baselines} is for what engines are measured against, and none takes part.",
            remedy="Say --engine, too, or leave --baselines out.",
        )
    with output.progress() as progress:
        notes: list[str] = []
        result = bench_bundle(
            options.chosen_bundle(bundle), groups, asked, progress, gpu=gpu, tell=notes.append
        )
    for text in notes:
        output.note(text)
    if json:
        output.print_json(result)
    else:
        print_latency(result)
