"""Judges of searches that know their figures without building anything."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Mapping

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.evaluation.results import RESULT_SCHEMA, Status
from riformer_deploy.quantization.search import SearchTask
from riformer_deploy.quantization.search_records import Judge, Judged, Lane, SearchGate, SearchTrace, Timed
from riformer_deploy.quantization.search_space import dimensions_of, plain_configs, quantized_configs
from riformer_deploy.quantization.tune_result import TuneResult
from riformer_deploy.system.records import Machine

LAYERS = (
    "backbone.patch_embed.proj", "backbone.network.1.proj", "backbone.network.0.0.mlp.fc1",
    "backbone.network.0.0.mlp.fc2", "head.fc",
)  # fmt: skip
FORM = LoweringConfig(precision=Precision.FP16)


def draw(config: LoweringConfig, seed: int, what: str) -> float:
    """A figure of a config, from 0 to 1, the same every time."""
    digest = hashlib.sha256(f"{config.heeded()!r} {seed} {what}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


class Figures(Judge):
    """A judge of random figures: latencies with noise, accuracies around the tolerance, and failures.

    Args:
        seed: Of all figures.
        noise: Relative deviation of a sample.
        failing: Share of configs that cannot be built, and of those that fail when they are timed.
        batches: Batch sizes.
    """

    def __init__(
        self, seed: int, noise: float = 0.02, failing: float = 0.1, batches: tuple[int, ...] = (1,)
    ) -> None:
        self.seed, self.noise, self.failing, self.batches = seed, noise, failing, batches
        self.spent_s = 0.0
        self.asked = 0

    def true_ms(self, config: LoweringConfig, batch: int) -> float:
        return batch * (5 + 10 * draw(config, self.seed, f"ms {batch}"))

    def judge(self, config: LoweringConfig) -> Judged:
        self.asked += 1
        self.spent_s += 2.0
        if config.precision is not Precision.FP32 and draw(config, self.seed, "builds") < self.failing:
            return Judged(spent_s=2.0, failure="it cannot be built")
        floor = 30.0 if config.precision.is_quantized else 60.0
        sqnr = floor + 30 * (draw(config, self.seed, "sqnr") - 0.3)
        return Judged(
            spent_s=2.0,
            artifact_sha256=hashlib.sha256(repr(config).encode()).hexdigest(),
            sqnr_db=sqnr,
            changed_percent=2 * draw(config, self.seed, "changed"),
            within_tolerance=sqnr >= floor or config.precision is Precision.FP32,
        )

    def race(self, configs: Mapping[int, LoweringConfig], seconds: float) -> Timed:
        self.asked += 1
        spent = seconds + 0.25 * len(configs)
        self.spent_s += spent
        lanes, failures = [], {}
        for number, config in configs.items():
            if config.precision is not Precision.FP32 and draw(config, self.seed, "runs") < self.failing / 2:
                failures[str(number)] = "it crashed"
                continue
            noise = random.Random(f"{config!r} {self.asked} {self.seed}")  # noqa: S311  # figures, no secrets
            for batch in self.batches:
                samples = [
                    self.true_ms(config, batch) * max(noise.gauss(1, self.noise), 0.1) for _ in range(12)
                ]
                lanes.append(Lane(trial=number, batch=batch, samples_ms=tuple(samples)))
        return Timed(spent_s=spent, lanes=tuple(lanes), failures=failures)


def task(
    runtime: RuntimeKind = RuntimeKind.OPENVINO,
    gate: SearchGate | None = None,
    max_seconds: float | None = None,
    held: tuple[LoweringConfig, ...] = (),
) -> SearchTask:
    return SearchTask(
        plain=plain_configs(FORM, runtime),
        starts=quantized_configs(FORM, runtime, LAYERS),
        held=held,
        dimensions=dimensions_of(LAYERS),
        runtime=runtime,
        gate=gate or SearchGate(),
        max_seconds=max_seconds,
    )


class Known(Figures):
    """Latencies and accuracies that a test states; nothing fails, no noise."""

    def __init__(
        self,
        ms: Callable[[LoweringConfig], float],
        sqnr_db: Callable[[LoweringConfig], float] = lambda config: (
            36.0 if config.precision.is_quantized else 90.0
        ),
    ) -> None:
        super().__init__(0, noise=0.001, failing=0.0)
        self.ms, self.sqnr_db = ms, sqnr_db

    def true_ms(self, config: LoweringConfig, _batch: int) -> float:
        return self.ms(config)

    def judge(self, config: LoweringConfig) -> Judged:
        judged = super().judge(config)
        return dataclasses.replace(
            judged, sqnr_db=self.sqnr_db(config), changed_percent=0.0, within_tolerance=True
        )


def tuned(trace: SearchTrace, **changes: object) -> TuneResult:
    """A result of ``tune`` for OpenVINO with this trace."""
    assert trace.answer is not None
    answer = trace.trials[trace.answer]
    result = TuneResult(
        schema=RESULT_SCHEMA,
        kind="tune",
        created_utc="2026-11-26T12:00:00+00:00",
        key="0" * 64,
        machine=Machine(
            cpu="a CPU",
            cores=2,
            memory_bytes=None,
            system="Linux x86_64",
            python="3.11",
            libraries={},
            instruction_sets=("avx512_vnni",),
        ),
        runtime=RuntimeKind.OPENVINO,
        threads=2,
        batches=tuple(dict.fromkeys(lane.batch for race in trace.races for lane in race.lanes)) or (1,),
        calibration="images.npz",
        calibration_images=64,
        random=False,
        dataset=None,
        reference_top1_percent=None,
        gate=SearchGate(),
        max_seconds=None,
        trace=trace,
        file=f"model.{answer.config.precision}.onnx",
        artifact_sha256=answer.judged.artifact_sha256,
        engine_file=None,
        notes=(),
        status=Status.PASSED,
    )
    return dataclasses.replace(result, **changes)  # type: ignore[arg-type]  # fields of the record
