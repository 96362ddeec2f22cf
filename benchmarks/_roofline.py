"""What a GPU could do at best: its copy bandwidth and matrix rate beside what a model needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from riformer_deploy.architecture import Architecture, Form
from riformer_deploy.complexity import complexity


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Rates measured on this GPU.

    Attributes:
        copy_bytes_per_s: Device-to-device copy, bytes read and written.
        matrix_flops_per_s: Operations (two per multiply-add) of a large square product, by type.
    """

    copy_bytes_per_s: float
    matrix_flops_per_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Need:
    """The least that one batch needs.

    Attributes:
        flops: Operations, two per multiply-add.
        least_bytes: Weights once, images, outputs, and the activations that no fusion can keep on the
            chip: every norm needs the whole map before its first value can be used, so each map that is
            normalised is written once and read once.
    """

    flops: float
    least_bytes: float


def _timed_s(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call by events, after three untimed ones."""
    samples = []
    for number in range(repeats + 3):
        start, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if number >= 3:
            samples.append(float(start.elapsed_time(end)) / 1000)
    return median(samples)


def measure_ceiling(repeats: int = 10) -> Ceiling:
    """Copy a gibibyte, and multiply matrices of 8192 x 8192.

    Args:
        repeats: Timed calls of each.
    """
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(source)
    moved = 2 * source.numel() / _timed_s(partial(copy.copy_, source), repeats)
    size = 8192
    rates = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
        rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / _timed_s(partial(torch.mm, a, b), repeats)
    a, b = (torch.randint(-8, 8, (size, size), dtype=torch.int8, device="cuda") for _ in range(2))
    rates["int8"] = 2 * size**3 / _timed_s(partial(torch._int_mm, a, b.t()), repeats)  # noqa: SLF001
    return Ceiling(copy_bytes_per_s=moved, matrix_flops_per_s=rates)


def need_of(
    architecture: Architecture, side_px: int, batch: int, weight_bytes: float, map_bytes: float
) -> Need:
    """The least that a batch needs.

    Args:
        architecture: Shape of the network.
        side_px: Height and width of an image.
        batch: Images.
        weight_bytes: Bytes of a weight.
        map_bytes: Bytes of a value of the maps that norms take.
    """
    cost = complexity(architecture, Form.FOLDED, (side_px, side_px))
    moved = 0.0
    side = -(-side_px // 4)
    for depth, width in zip(architecture.layers, architecture.embed_dims, strict=True):
        # two norms a block, and the map that the next stage (or the last norm) takes
        moved += 2 * (2 * depth + 1) * width * side * side * map_bytes
        side = -(-side // 2)
    images, outputs = 3 * side_px**2 * 4, architecture.num_classes * 4
    return Need(
        flops=2.0 * cost.flops * batch,
        least_bytes=cost.parameters * weight_bytes + batch * (moved + images + outputs),
    )


def floor_ms(need: Need, ceiling: Ceiling, matrix_type: str) -> float:
    """The roofline: the longer of moving the bytes and doing the operations, in milliseconds.

    Args:
        need: The batch's.
        ceiling: The GPU's.
        matrix_type: Key of ``matrix_flops_per_s``.
    """
    moving = need.least_bytes / ceiling.copy_bytes_per_s
    computing = need.flops / ceiling.matrix_flops_per_s[matrix_type]
    return 1000 * max(moving, computing)
