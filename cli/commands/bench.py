"""``riformer-deploy bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from riformer_deploy.common.enums import Baselines, DeviceLayer, Group

from .. import options, output, selection
from ..panels import MEASURING, Rare
from ..tables.latency import print_latency


def bench(
    bundle: options.BundlePath = None,
    backend: options.WithList = None,
    precision: selection.PrecisionsToRun = None,
    torch: Annotated[
        bool, typer.Option("--torch", help="Same as --with torch: PyTorch in each form.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Same as --with onnx: ONNX Runtime.")] = False,
    openvino: Annotated[bool, typer.Option("--openvino", help="Same as --with openvino.")] = False,
    engine: Annotated[
        bool,
        typer.Option(
            "--engine",
            help="Same as --with engine: TensorRT engines, and what they are measured against on a GPU.",
        ),
    ] = False,
    batch: Annotated[
        list[str] | None, typer.Option(metavar="N,...", help="Batch sizes.", show_default="1,8")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Rounds per batch size.",
            show_default="until the interval of every ratio is narrow",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            help="Limit without --rounds, seconds.",
            show_default="60",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(help="Timed calls per turn.", show_default="1", rich_help_panel=Rare(MEASURING)),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(
            help="Untimed calls first.", show_default="3, or a second", rich_help_panel=Rare(MEASURING)
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads.", show_default="every core", rich_help_panel=MEASURING)
    ] = None,
    compile_torch: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Time torch.compile on the CPU, too; it takes minutes.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graph/--no-cuda-graph",
            help="Launch engines as CUDA graphs.",
            show_default="both",
            rich_help_panel=Rare(MEASURING),
        ),
    ] = None,
    baselines: Annotated[
        Baselines | None,
        typer.Option(
            help="With --engine: ways of running PyTorch on the GPU. none; quick: they compile within a "
            "minute; strong: the few strongest, minutes; all: many minutes.",
            show_default="strong",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    device_layer: options.Layer = DeviceLayer.CUDA_PYTHON,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Time a bundle's models side by side, and say which is the fastest, by how much."""
    from riformer_deploy.api.bench import BenchOptions, GpuOptions, bench_bundle
    from riformer_deploy.common.errors import OptionError

    default = BenchOptions()
    batches = selection.chosen_batches(batch)
    asked = BenchOptions(
        batches=batches or default.batches,
        rounds=rounds,
        max_seconds=default.max_seconds if max_seconds is None else max_seconds,
        repeats=default.repeats if repeats is None else repeats,
        warmup=warmup,
        threads=threads,
    )
    words = {"torch": torch, "onnx": onnx, "openvino": openvino, "engine": engine}
    runners = selection.chosen_runners([*(backend or ()), *(word for word, said in words.items() if said)])
    graphs = GpuOptions().cuda_graphs if cuda_graph is None else (cuda_graph,)
    gpu = GpuOptions(
        layer=device_layer,
        cuda_graphs=graphs,
        required=options.RunnerChoice.ENGINE in runners,
        baselines=baselines or GpuOptions().baselines,
    )
    groups = selection.chosen_groups(runners, compiled=compile_torch)
    if baselines is not None and Group.GPU not in groups:
        raise OptionError(
            f"--baselines {baselines} is for what engines are measured against, and none takes part.",
            remedy="Say --engine, too, or leave --baselines out.",
        )
    precisions = selection.chosen_precisions(precision)
    directory = options.chosen_bundle(bundle)
    with output.progress() as progress:
        notes: list[str] = []
        result = bench_bundle(
            directory, groups, asked, progress, gpu=gpu, precisions=precisions, tell=notes.append
        )
    for text in notes:
        output.note(text)
    if json:
        output.print_json(result)
    else:
        print_latency(result)
        output.next_step("report", directory)
