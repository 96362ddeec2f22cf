"""What every benchmark shares: timing whole commands, and writing results with the machine's description."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from torch import nn

from riformer_deploy.common.serialization import JsonValue, to_jsonable

# Internals: weights of published shapes, and the machine's description.
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.system.machine import describe_machine

RESULTS = Path(__file__).parent / "results"


def random_state(architecture: Architecture, seed: int = 0) -> dict[str, torch.Tensor]:
    """Finite, well-scaled weights in training form; speed does not depend on their values."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in architecture.shapes(Form.TRAINING).items():
        value = torch.randn(shape, generator=generator)
        if key.endswith("bias"):
            value *= 0.1
        elif len(shape) > 1 and not key.endswith("affine.weight"):
            value /= value[0].numel() ** 0.5
        else:
            value = 1 + 0.2 * value if "norm" in key or "affine" in key else 0.1 * value.abs()
        state[key] = value
    return state


def naive_export(model: nn.Module, path: Path, side_px: int) -> Path:
    """What ``torch.onnx.export`` makes of a model, as a user without this toolkit would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, side_px, side_px),),
            path,
            input_names=["images"],
            output_names=["logits"],
            opset_version=20,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            verbose=False,
        )
    return path


def wall_s(command: Sequence[str]) -> float:
    """Seconds that a command takes from start to exit; its output is dropped."""
    start = time.perf_counter()
    subprocess.run(  # noqa: S603  # commands of this file's callers
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def interleaved_s(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Wall times of commands run in turn, ``rounds`` times; one untimed round goes before."""
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            seconds = wall_s(command)
            if number > 0:
                samples[name].append(seconds)
    return samples


def peak_rss_of(command: Sequence[str]) -> tuple[float, int]:
    """Seconds and largest resident memory (bytes) of one command, waited for on its own."""
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603  # commands of this file's callers
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def medians(samples: dict[str, list[float]]) -> dict[str, float]:
    """Median of each series."""
    return {name: median(values) for name, values in samples.items()}


def result_header(name: str, what: str) -> dict[str, JsonValue]:
    """What every result begins with: the benchmark, in words too, when, and where."""
    return {
        "benchmark": name,
        "what": what,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": to_jsonable(describe_machine()),
    }


def write_result(name: str, what: str, figures: dict[str, JsonValue], targets: dict[str, JsonValue]) -> None:
    """Write ``results/<name>.json`` and print the figures; a target is met or not, nothing is asserted."""
    record = {**result_header(name, what), "targets": targets, "figures": figures}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(targets, indent=2))
    print(f"written to {path.relative_to(Path(__file__).parent.parent)}", file=sys.stderr)


def target(value: float, limit: float, *, at_most: bool = True) -> JsonValue:
    """A figure beside its limit."""
    met = value <= limit if at_most else value >= limit
    return {
        "value": round(value, 4),
        "limit": limit,
        "sense": "at most" if at_most else "at least",
        "met": met,
    }
