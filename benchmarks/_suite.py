"""The GPU suite's bookkeeping: stages with a deadline, what they found, and the targets beside it."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from _common import target

from riformer_deploy.errors import RIFormerDeployError
from riformer_deploy.gpu_state import GpuState, read_gpu
from riformer_deploy.machine import describe_machine
from riformer_deploy.optional import PACKAGES, installed_version
from riformer_deploy.passports import Backend
from riformer_deploy.records import JsonValue, to_jsonable
from riformer_deploy.results import LatencyResult, ParityResult, Status, Timing


@dataclass(kw_only=True)
class Suite:
    """What has been found so far, and how long there is left.

    Attributes:
        deadline: On ``time.monotonic``'s clock.
        out: The file to write.
        engines: What was built.
        proofs: Parity by bundle.
        latency: Latencies, each with what was timed.
        ceilings: What the GPU could do at best, once a model.
        roofline: Engines beside these.
        left_out: What could not be done, with the reason.
        log: The GPU after each stage; nobody asks it while something is timed.
    """

    deadline: float
    out: Path
    engines: list[JsonValue] = field(default_factory=list)
    proofs: dict[str, ParityResult] = field(default_factory=dict)
    latency: list[tuple[str, LatencyResult]] = field(default_factory=list)
    ceilings: list[JsonValue] = field(default_factory=list)
    roofline: list[JsonValue] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    log: list[GpuState] = field(default_factory=list)

    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage: whatever goes wrong in it is named, and the next one begins."""
        start = time.monotonic()
        print(f"{name}: {self.left_s():.0f} s left", file=sys.stderr, flush=True)
        try:
            yield
        except RIFormerDeployError as err:
            self.left_out.append(f"{name}: {err}")
        except Exception as err:  # noqa: BLE001  # a suite that runs once must bring home what it can
            traceback.print_exc()
            self.left_out.append(f"{name}: {type(err).__name__}: {err}")
        print(f"{name} took {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
        self.write({})

    def fits(self, name: str, needed_s: float) -> bool:
        """Whether so many seconds are left; where they are not, the stage is named as left out."""
        if self.left_s() >= needed_s:
            return True
        self.left_out.append(f"{name}: {needed_s:.0f} s needed, {max(self.left_s(), 0):.0f} s left")
        return False

    def write(self, targets: Mapping[str, JsonValue]) -> None:
        """Write what there is; beside the result until there are targets, in case the suite is killed."""
        gpu, problem = read_gpu()
        self.log += [] if gpu is None else [gpu]
        packages: dict[str, JsonValue] = {name: installed_version(name) for name in PACKAGES}
        record: dict[str, JsonValue] = {
            "benchmark": "gpu_suite",
            "what": "engines, parity, latency, fusion ablation and roofline on one GPU",
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": to_jsonable(describe_machine()),
            "gpu": problem if gpu is None else to_jsonable(gpu),
            "torch": {"version": torch.__version__, "cuda": torch.version.cuda},
            "packages": packages,
            "targets": dict(targets),
            "left_out": list(dict.fromkeys(self.left_out)),
            "figures": {
                "engines": self.engines,
                "parity": to_jsonable(self.proofs),
                "latency": [{"what": what, "result": to_jsonable(result)} for what, result in self.latency],
                "roofline": {"ceilings": self.ceilings, "rows": self.roofline},
            },
            "clocks": to_jsonable(self.log),
        }
        partial = self.out.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        if targets:
            partial.replace(self.out)


def medians(result: LatencyResult, timing: Timing) -> dict[str, float]:
    """Median of every contestant's series of one timing, in milliseconds."""
    return {s.name: median(s.samples_ms) for s in result.samples if s.timing is timing}


def _fastest(figures: Mapping[str, float], *words: str) -> str | None:
    """The fastest of those whose name holds all the words."""
    fitting = [name for name in figures if all(word in name for word in words)]
    return min(fitting, key=lambda name: figures[name], default=None)


def _speed_up(result: LatencyResult | None, backend: Backend) -> JsonValue:
    """Kernels of PyTorch's fastest compiled half-precision model over those of the FP16 engine."""
    if result is None:
        return "not measured"
    compute = medians(result, Timing.COMPUTE)
    ours, theirs = _fastest(compute, f"{backend.label} fp16"), _fastest(compute, "float16", "torch.compile")
    if ours is None or theirs is None:
        return "not measured"
    return target(compute[theirs] / compute[ours], 1.5, at_most=False)


def _overhead(result: LatencyResult | None, backend: Backend) -> JsonValue:
    """What a call takes beyond kernels and copies, as a share of the kernels."""
    if result is None:
        return "not measured"
    timings = (Timing.CALL, Timing.COMPUTE, Timing.TRANSFERS)
    call, compute, copies = (medians(result, timing) for timing in timings)
    name = _fastest(compute, f"{backend.label} fp16")
    if name is None:
        return "not measured"
    return target((call[name] - compute[name] - copies[name]) / compute[name], 0.10)


def judge(
    timed: Mapping[int, LatencyResult],
    proofs: Mapping[str, ParityResult],
    batches: list[int],
) -> dict[str, JsonValue]:
    """The targets beside what was measured; what was not measured is said.

    Args:
        timed: Latencies by batch size.
        proofs: Parity by bundle; those of the digits have real weights.
        batches: Batch sizes, ascending.
    """
    targets: dict[str, JsonValue] = {}
    for backend in Backend:
        for batch in (batches[0], batches[-1]):
            title = f"batch {batch}: kernels of torch.compile fp16 over those of {backend.label} fp16"
            targets[title] = _speed_up(timed.get(batch), backend)
        title = f"batch {batches[0]}: host overhead of {backend.label} fp16 over its kernels"
        targets[title] = _overhead(timed.get(batches[0]), backend)
    ran = [proof for name, proof in proofs.items() if "digits" in name and proof.candidates]
    held = [proof.status is Status.PASSED and not proof.skipped for proof in ran]
    targets["parity of every engine of the digits within its budget"] = all(held) if held else "not measured"
    return targets
