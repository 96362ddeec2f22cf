"""What a GPU could do at best: its measured rates, and what every layer of a model must move and compute."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from riformer_deploy.common.enums import Precision

# Internals: every layer's shape counts.
from riformer_deploy.model.architecture import Architecture

_LARGE_BYTES = 2**30
"""Far more than any L2 holds."""
_CACHED_BYTES = 8 * 2**20
"""Source and target of a copy stay in the L2 of a large GPU (50 MB on an H100); a smaller one shows less."""
_COPIES = 50
"""Copies within L2 that are timed together, since one takes less than a launch."""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Rates measured on this device.

    Attributes:
        copy_bytes_per_s: Copy within device memory, bytes read plus bytes written.
        cached_copy_bytes_per_s: The same of buffers that stay in L2.
        matrix_flops_per_s: Operations (two per multiply-add) of a large square product, by type; a type
            that the device or this PyTorch cannot multiply is left out.
    """

    copy_bytes_per_s: float
    cached_copy_bytes_per_s: float
    matrix_flops_per_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class StoredAs:
    """Bytes of a value, and the type that matrices are multiplied in, for one precision.

    Attributes:
        weight_bytes: Of a weight of a quantised layer, or of any where nothing is quantised.
        stream_bytes: Of a value of the residual stream, and of the weights of layers that are not quantised.
        hidden_bytes: Of a value between fc1 and fc2.
        matrix_type: Key of :attr:`Ceiling.matrix_flops_per_s`, for the layers that are quantised.
        mlp_only: Whether only the MLPs are; else stem, downsampling and head are, too.
    """

    weight_bytes: int
    stream_bytes: int
    hidden_bytes: int
    matrix_type: str
    mlp_only: bool = False


STORED_AS = {
    Precision.FP32: StoredAs(weight_bytes=4, stream_bytes=4, hidden_bytes=4, matrix_type="float32"),
    Precision.FP16: StoredAs(weight_bytes=2, stream_bytes=2, hidden_bytes=2, matrix_type="float16"),
    Precision.BF16: StoredAs(weight_bytes=2, stream_bytes=2, hidden_bytes=2, matrix_type="bfloat16"),
    # the base of both is half precision here
    Precision.INT8: StoredAs(weight_bytes=1, stream_bytes=2, hidden_bytes=1, matrix_type="int8"),
    Precision.FP8: StoredAs(
        weight_bytes=1, stream_bytes=2, hidden_bytes=1, matrix_type="float8_e4m3fn", mlp_only=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class LayerNeed:
    """The least that one layer moves and computes for one batch, each layer by itself.

    Attributes:
        name: Such as ``stage 1 block 1 fc1``.
        flops: Operations, two per multiply-add.
        moved_bytes: Inputs read once, result written once, weights read once.
        ideal_bytes: What is left where a whole block reads and writes its stream once and nothing else.
        kernel: Number of the kernel that it is a part of in that ideal: a block is one.
        in_mlp: Whether it is one of the MLP's products.
    """

    name: str
    flops: float
    moved_bytes: float
    ideal_bytes: float
    kernel: int
    in_mlp: bool = False


def layers_of(architecture: Architecture, side_px: int, batch: int, stored: StoredAs) -> list[LayerNeed]:
    """The layers of an engine that fuses every pointwise operation into its neighbour.

    A block is three layers. *Moments* reads its input x once: y is a multiple of x plus a constant per sample
    and channel, so the statistics of both norms follow from one pass. *fc1* reads x again, normalises it on
    the way and writes the hidden map. *fc2* reads the hidden map, reads x for the residual, and writes.

    Args:
        architecture: Shape of the network.
        side_px: Height and width of an image, float32 in device memory.
        batch: Images.
        stored: Bytes of the values.
    """
    layers: list[LayerNeed] = []
    dims, kernels = architecture.embed_dims, itertools.count()
    outside = stored.stream_bytes if stored.mlp_only else stored.weight_bytes

    def convolution(name: str, given_bytes: float, inputs: int, out: int, kernel: int, pixels: int) -> None:
        weights = inputs * out * kernel**2
        moved = given_bytes + out * pixels * batch * stored.stream_bytes + weights * outside
        layers.append(
            LayerNeed(
                name=name, flops=2.0 * weights * pixels * batch, moved_bytes=moved, ideal_bytes=moved,
                kernel=next(kernels),
            )
        )  # fmt: skip

    side = (side_px - 3) // 4 + 1  # kernel 7, stride 4, padding 2
    convolution("stem", 3 * side_px**2 * 4 * batch, 3, dims[0], 7, side**2)
    for stage, (depth, dim, hidden) in enumerate(
        zip(architecture.layers, dims, architecture.hidden_dims, strict=True), start=1
    ):
        if stage > 1:
            before = dims[stage - 2] * side**2 * batch * stored.stream_bytes
            side = (side - 1) // 2 + 1  # kernel 3, stride 2, padding 1
            convolution(f"downsampling {stage}", before, dims[stage - 2], dim, 3, side**2)
        stream = dim * side**2 * batch * stored.stream_bytes
        between = hidden * side**2 * batch * stored.hidden_bytes
        weights, flops = dim * hidden * stored.weight_bytes, 2.0 * dim * hidden * side**2 * batch
        for block in range(1, depth + 1):
            name, kernel = f"stage {stage} block {block}", next(kernels)
            layers += [
                LayerNeed(
                    name=f"{name} moments", flops=0.0, moved_bytes=stream, ideal_bytes=0.0, kernel=kernel
                ),
                LayerNeed(
                    name=f"{name} fc1", flops=flops, moved_bytes=stream + weights + between,
                    ideal_bytes=stream + weights, kernel=kernel, in_mlp=True,
                ),
                LayerNeed(
                    name=f"{name} fc2", flops=flops, moved_bytes=between + weights + 2 * stream,
                    ideal_bytes=weights + stream, kernel=kernel, in_mlp=True,
                ),
            ]  # fmt: skip
    last = dims[-1] * side**2 * batch * stored.stream_bytes  # the pooled norm follows from the moments
    layers.append(
        LayerNeed(
            name="final norm and pooling", flops=0.0, moved_bytes=last, ideal_bytes=last, kernel=next(kernels)
        )
    )
    head = dims[-1] * architecture.num_classes
    moved = head * outside + batch * architecture.num_classes * 4.0
    layers.append(
        LayerNeed(
            name="head", flops=2.0 * head * batch, moved_bytes=moved, ideal_bytes=moved, kernel=next(kernels)
        )
    )
    return layers


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time of a batch, in milliseconds.

    Attributes:
        layers_ms: The sum over the layers of the longer of moving and computing, from device memory.
        cached_layers_ms: The same at the rate of L2, for batches whose maps stay there.
        ideal_ms: The same where a block's layers are one kernel: each reads and writes its stream once.
        computing_ms: Only the operations.
    """

    layers_ms: float
    cached_layers_ms: float
    ideal_ms: float
    computing_ms: float


def floor_of(layers: Sequence[LayerNeed], ceiling: Ceiling, stored: StoredAs) -> Floor | None:
    """The roofline of a batch, or None where the device has no rate for the matrix type.

    Args:
        layers: From :func:`layers_of`.
        ceiling: The device's.
        stored: As for ``layers``.
    """
    rates = ceiling.matrix_flops_per_s
    base_type = "float32" if stored.stream_bytes == 4 else "float16"
    if stored.matrix_type not in rates or base_type not in rates:
        return None

    def computing_s(layer: LayerNeed) -> float:
        quantised = layer.in_mlp or not stored.mlp_only
        return layer.flops / rates[stored.matrix_type if quantised else base_type]

    def layers_ms(rate: float) -> float:
        return 1000 * sum(max(layer.moved_bytes / rate, computing_s(layer)) for layer in layers)

    kernels = [list(parts) for _, parts in itertools.groupby(layers, lambda layer: layer.kernel)]
    ideal_s = (
        max(sum(p.ideal_bytes for p in parts) / ceiling.copy_bytes_per_s, sum(map(computing_s, parts)))
        for parts in kernels
    )
    return Floor(
        layers_ms=layers_ms(ceiling.copy_bytes_per_s),
        cached_layers_ms=layers_ms(ceiling.cached_copy_bytes_per_s),
        ideal_ms=1000 * sum(ideal_s),
        computing_ms=1000 * sum(map(computing_s, layers)),
    )


def _timed_s(work: Callable[[], object], repeats: int, device: str) -> float:
    """Median seconds of a call: by events on a GPU, by the clock on the CPU; three untimed ones go before."""
    samples = []
    for number in range(repeats + 3):
        begin = time.perf_counter()
        if device == "cuda":
            start, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            took = float(start.elapsed_time(end)) / 1000
        else:
            work()
            took = time.perf_counter() - begin
        if number >= 3:
            samples.append(took)
    return median(samples)


def _copy_rate(size: int, repeats: int, device: str, copies: int) -> float:
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def several() -> None:
        for _ in range(copies):
            target.copy_(source)

    work: Callable[[], object] = several
    if device == "cuda" and copies > 1:  # launching would take longer than copying
        several()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            several()
        work = graph.replay
    return 2 * size * copies / _timed_s(work, repeats, device)


def _products(size: int, device: str) -> dict[str, Callable[[], object]]:
    """A square product in every type."""
    found: dict[str, Callable[[], object]] = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        found[str(dtype).removeprefix("torch.")] = partial(torch.mm, a, b)
    x, y = (torch.randint(-8, 8, (size, size), dtype=torch.int8, device=device) for _ in range(2))
    found["int8"] = partial(torch._int_mm, x, y.t())  # noqa: SLF001
    one = torch.tensor(1.0, device=device)
    p, q = (torch.randn(size, size, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    found["float8_e4m3fn"] = partial(
        torch._scaled_mm,  # noqa: SLF001
        p,
        q.t(),
        scale_a=one,
        scale_b=one,
        out_dtype=torch.float16,
    )
    return found


def measure_ceiling(device: str = "cuda", *, repeats: int = 10) -> tuple[Ceiling, list[str]]:
    """Copy in device memory and in L2, and multiply large matrices of every type.

    Args:
        device: ``cuda``, or ``cpu`` for a dry run with small sizes.
        repeats: Timed rounds of each.

    Returns:
        The rates, and what could not be measured, with the reason.
    """
    dry = device == "cpu"
    size = 128 if dry else 8192
    rates: dict[str, float] = {}
    missing: list[str] = []
    for name, product in _products(size, device).items():
        try:
            rates[name] = 2 * size**3 / _timed_s(product, repeats, device)
        except RuntimeError as err:  # this device or this PyTorch has no such product
            missing.append(f"matrix rate of {name}: {str(err).splitlines()[0]}")
    ceiling = Ceiling(
        copy_bytes_per_s=_copy_rate(2**20 if dry else _LARGE_BYTES, repeats, device, 1),
        cached_copy_bytes_per_s=_copy_rate(2**16 if dry else _CACHED_BYTES, repeats, device, _COPIES),
        matrix_flops_per_s=rates,
    )
    return ceiling, missing
