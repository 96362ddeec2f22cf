"""The GPU suite's bookkeeping: stages with a deadline, what they found, and the file written after each."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from _common import result_header

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.common.dependencies import PACKAGES, installed_version
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import RIFormerDeployError
from riformer_deploy.common.serialization import JsonValue, to_jsonable

# Internals: raw results are kept as they were measured.
from riformer_deploy.evaluation.results import LatencyResult, ParityResult
from riformer_deploy.system.nvml import read_gpu
from riformer_deploy.system.records import GpuState


@dataclass(frozen=True, kw_only=True)
class CandidateFacts:
    """What was timed, and whose it is.

    Attributes:
        config: What was run, and how.
        bundle: The bundle that its artifact is from; None for a baseline.
    """

    config: CandidateConfig
    bundle: str | None


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One measurement of latencies.

    Attributes:
        what: In words.
        variant: The model.
        precision: The candidates'; baselines may have another.
        candidates: What was timed.
        result: What was measured.
    """

    what: str
    variant: str
    precision: Precision
    candidates: tuple[CandidateFacts, ...]
    result: LatencyResult

    def bundle_of(self, config: CandidateConfig) -> str | None:
        """The bundle that a candidate's artifact is from; None for a baseline."""
        return next(known.bundle for known in self.candidates if known.config == config)


@dataclass(kw_only=True)
class Suite:
    """What has been found so far, and how long there is left.

    Attributes:
        deadline: On ``time.monotonic``'s clock.
        out: The file to write.
        dry: Whether this is a dry run, whose figures mean nothing.
        scratch: A folder whose name is left out of what is written.
        devices: Each device layer: what it copies, and how fast.
        engines: What was built.
        loading: Whether engines of each flavor and target load on this GPU, with the exact errors.
        standin: Parity of engines of the stand-in, which is not TensorRT.
        parity: Parity of real engines by bundle.
        latency: In the order of measuring.
        roofline: Ceilings, and every candidate beside its floor.
        left_out: What could not be done, with the reason.
        states: The GPU after each stage.
    """

    deadline: float
    out: Path
    dry: bool = False
    scratch: Path | None = None
    devices: list[JsonValue] = field(default_factory=list)
    engines: list[JsonValue] = field(default_factory=list)
    loading: list[JsonValue] = field(default_factory=list)
    standin: dict[str, ParityResult] = field(default_factory=dict)
    parity: dict[str, ParityResult] = field(default_factory=dict)
    latency: list[Timed] = field(default_factory=list)
    roofline: JsonValue = None
    left_out: list[str] = field(default_factory=list)
    states: list[tuple[str, GpuState]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage: whatever goes wrong in it is named, the file is written, and the next one begins."""
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
        state, _ = read_gpu()
        if state is not None:
            self.states.append((name, state))
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
        packages: dict[str, JsonValue] = {name: installed_version(name) for name in PACKAGES}
        what = "device layers, engines, parity, latency, fusion ablation and roofline on one GPU"
        record: dict[str, JsonValue] = {
            **result_header("gpu_suite", f"DRY RUN, the figures mean nothing: {what}" if self.dry else what),
            "gpu": problem if gpu is None else to_jsonable(gpu),
            "torch": {"version": torch.__version__, "cuda": torch.version.cuda},
            "packages": packages,
            "targets": dict(targets),
            "left_out": list(dict.fromkeys(self.left_out)),
            "figures": {
                "devices": self.devices,
                "engines": self.engines,
                "loading": self.loading,
                "standin": to_jsonable(self.standin),
                "parity": to_jsonable(self.parity),
                "latency": to_jsonable(self.latency),
                "roofline": self.roofline,
            },
            "states": [{"after": name, "gpu": to_jsonable(state)} for name, state in self.states],
        }
        partial = self.out.with_suffix(".partial")
        with self._lock:
            self._put(partial, record, done=bool(targets))

    def _put(self, partial: Path, record: Mapping[str, JsonValue], *, done: bool) -> None:
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        if self.scratch is not None:  # reasons name files in full
            text = text.replace(json.dumps(f"{self.scratch}/")[1:-1], "")
        partial.write_text(text, encoding="utf-8")
        if done:
            partial.replace(self.out)
