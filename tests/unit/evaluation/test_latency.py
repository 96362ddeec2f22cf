from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from torch import Tensor, nn

from riformer_deploy.backends.base import BatchRange, Candidate, Outputs, Runtime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.errors import MissingDependencyError, OptionError, RuntimeFailureError
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation import latency, latency_rounds
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.latency_summary import instability
from riformer_deploy.evaluation.results import InputImages, LatencyResult
from tests.candidates import labelled

ROUNDS = 6
WARM_UP = 2
OPTIONS = BenchOptions(batches=(2,), rounds=ROUNDS, repeats=3, warmup=WARM_UP, threads=1)
IMAGES = np.zeros((4, 3, 8, 8), dtype=np.float32)
INPUTS = InputImages(description="zeros", image_size_px=(8, 8), batches=(2,), seed=None)


@dataclass
class Recorder(Runtime):
    """Writes down whose turn it is; fails from a given call on."""

    name: str
    log: list[str]
    fails_at: int | None = None
    calls: int = 0

    def run(self, images: Images) -> Outputs:
        if self.calls == self.fails_at:
            raise RuntimeFailureError(f"{self.name} broke down")
        self.calls += 1
        self.log.append(f"{self.name}{len(images)}")
        return {"logits": np.zeros((len(images), 2))}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        self.log.append(f"{self.name} closed")


def _candidate(name: str, start: Callable[[], Runtime], *, batch: int | None = None) -> Candidate:
    return Candidate(
        config=labelled(name),
        artifact_sha256=name * 3,
        batches=BatchRange.of(batch),
        open=start,
    )


def _recorders(log: list[str], names: str, **fails_at: int) -> list[Candidate]:
    return [
        _candidate(name, lambda name=name: Recorder(name, log, fails_at.get(name)))  # type: ignore[misc]
        for name in names
    ]


def _measure(candidates: Sequence[Candidate], options: BenchOptions = OPTIONS) -> LatencyResult:
    return measure_latency(candidates, IMAGES, INPUTS, options)


def test_every_candidate_has_one_turn_per_round_with_one_untimed_call_before_the_timed_ones() -> None:
    log: list[str] = []
    result = _measure(_recorders(log, "ABC"))
    assert log[:6] == ["A2", "A2", "B2", "B2", "C2", "C2"]  # warming up
    assert log[-3:] == ["A closed", "B closed", "C closed"]
    calls = log[6:-3]
    turn = 1 + OPTIONS.repeats
    turns = [calls[start : start + turn] for start in range(0, len(calls), turn)]
    assert len(turns) == ROUNDS * 3
    assert all(len(set(names)) == 1 for names in turns)
    rounds = [tuple(names[0] for names in turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert all(sorted(order) == ["A2", "B2", "C2"] for order in rounds)
    assert len(set(rounds)) > 1  # the order is shuffled
    assert [len(item.samples_ms) for item in result.samples] == [ROUNDS * OPTIONS.repeats] * 3


def test_the_order_of_turns_follows_from_the_seed() -> None:
    orders = []
    for seed in (1, 1, 2):
        log: list[str] = []
        _measure(_recorders(log, "ABC"), replace(OPTIONS, seed=seed))
        orders.append(log)
    assert orders[0] == orders[1] != orders[2]


def test_each_batch_size_is_measured_on_that_many_images_in_rounds_of_its_own() -> None:
    log: list[str] = []
    result = _measure(_recorders(log, "AB"), replace(OPTIONS, batches=(1, 4)))
    assert [(item.name, item.batch) for item in result.samples] == [("A", 1), ("B", 1), ("A", 4), ("B", 4)]
    count = WARM_UP + ROUNDS * (1 + OPTIONS.repeats)
    for name in ("A1", "B1", "A4", "B4"):
        assert log.count(name) == count
    assert log.index("A closed") < log.index("A4")


def test_a_batch_larger_than_the_images_is_never_measured_as_a_smaller_one() -> None:
    with pytest.raises((OptionError, ValueError)):
        _measure(_recorders([], "A"), replace(OPTIONS, batches=(8,)))


def test_samples_are_real_times_of_the_timed_calls_alone() -> None:
    class Slow(Recorder):
        def run(self, images: Images) -> Outputs:
            super().run(images)
            untimed = self.calls <= WARM_UP or (self.calls - WARM_UP) % 4 == 1
            time.sleep(0.02 if untimed else 0.002)
            return {"logits": np.zeros((len(images), 2))}

    (samples,) = _measure([_candidate("S", lambda: Slow("S", []))]).samples
    assert min(samples.samples_ms) >= 2
    assert np.median(samples.samples_ms) < 20
    assert samples.preparation_ms >= 20 * WARM_UP
    assert samples.summary.images_per_s == pytest.approx(2000 / np.median(samples.samples_ms))


def test_a_candidate_of_another_fixed_batch_is_left_out_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []
    fixed = _candidate("F", lambda: Recorder("F", log), batch=2)
    with caplog.at_level(logging.WARNING):
        result = _measure([*_recorders(log, "A"), fixed], replace(OPTIONS, batches=(1, 2)))
    assert [(item.name, item.batch) for item in result.samples] == [("A", 1), ("A", 2), ("F", 2)]
    assert result.skipped == (Skipped(config=labelled("F"), reason="takes batch 2 only, not 1"),)
    assert "F1" not in log
    assert "F was left out: takes batch 2 only, not 1" in caplog.text


def _cannot_open() -> Runtime:
    raise RuntimeFailureError("no kernel image", details=["sm_00"])


def test_a_candidate_that_cannot_be_loaded_or_run_is_left_out_with_the_reason() -> None:
    log: list[str] = []
    result = _measure([_candidate("O", _cannot_open), *_recorders(log, "AB", B=1)])
    assert [item.name for item in result.samples] == ["A"]
    assert result.skipped == (
        Skipped(config=labelled("O"), reason="no kernel image"),
        Skipped(config=labelled("B"), reason="B broke down"),
    )
    assert log.count("B closed") == log.count("A closed") == 1


def test_a_candidate_that_breaks_down_in_the_rounds_does_not_take_the_others_figures_along() -> None:
    log: list[str] = []
    result = _measure(_recorders(log, "AB", B=9))
    assert [item.name for item in result.samples] == ["A"]
    assert result.skipped == (Skipped(config=labelled("B"), reason="failed in round 2: B broke down"),)
    assert len(result.samples[0].samples_ms) == ROUNDS * OPTIONS.repeats
    assert log.count("B closed") == 1


def test_a_model_that_cannot_be_compiled_is_left_out_with_the_reason() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, images: Tensor) -> Tensor:
            raise ValueError(f"no kernel for {tuple(images.shape)}")

    broken = _candidate("compiled", lambda: PyTorchRuntime(Broken(), compiled=True, threads=1))
    result = _measure([*_recorders([], "A"), broken])
    assert [item.name for item in result.samples] == ["A"]
    assert [item.name for item in result.skipped] == ["compiled"]
    assert result.skipped[0].reason.startswith("PyTorch could not run the model: ")


def test_nothing_measured_is_an_error_that_says_why() -> None:
    with pytest.raises(RuntimeFailureError, match="Nothing could be measured") as caught:
        _measure([_candidate("O", _cannot_open)])
    assert caught.value.details == ("O: no kernel image",)


def test_a_missing_backend_ends_the_measurement_and_closes_what_was_open() -> None:
    def missing() -> Runtime:
        raise MissingDependencyError("onnxruntime is not installed.")

    log: list[str] = []
    with pytest.raises(MissingDependencyError):
        _measure([*_recorders(log, "A"), _candidate("M", missing)])
    assert log[-1] == "A closed"


def test_the_result_says_how_it_was_measured() -> None:
    said: list[str] = []
    beforehand = [Skipped(config=labelled("engine"), reason="no GPU")]
    result = measure_latency(
        _recorders([], "A"), IMAGES, INPUTS, OPTIONS, skipped=beforehand, progress=said.append
    )
    assert (result.rounds, result.repeats, result.threads, result.inputs) == (6, 3, 1, INPUTS)
    assert result.skipped == tuple(beforehand)
    assert result.samples[0].artifact_sha256 == "AAA"
    assert result.process_peak_rss_bytes > 10**7
    assert said[0] == "preparing A, batch 2"
    assert said[-1] == "batch 2, round 6 of 6"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([10.0] * 20, None),
        ([10.0, 10.5] * 10, None),
        ([10.0, 10.0, 14.0, 14.0] * 5, "middle half of the calls spreads over 33 %"),
        ([10.0] * 10 + [12.0] * 10, "the second half is 20% slower"),
        ([12.0] * 10 + [10.0] * 10, "the second half is 17% faster"),
        ([10.0, 10.0], None),
        ([10.0, 20.0], "100% slower"),
    ],
)
def test_series_that_spread_or_drift_are_called_unstable(samples: list[float], said: str | None) -> None:
    found = instability(samples)
    assert found is None if said is None else said in str(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batches": ()}, "batches"),
        ({"batches": (1, 0)}, "batches"),
        ({"rounds": 4}, "rounds"),
        ({"repeats": 0}, "repeats"),
        ({"warmup": 0}, "warmup"),
        ({"threads": 0}, "threads"),
    ],
)
def test_options_that_measure_nothing_are_refused(change: dict[str, int], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        replace(OPTIONS, **change)  # type: ignore[arg-type]


class _Clock:
    """A clock that only moves when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("opening_s", "call_s", "total_s"),
    [
        (2.0, 0.01, 60.0),  # preparing counts
        (10.0, 0.01, 10.0 * 2 * 2 + 30.0),  # half of the limit is left for rounds
        (40.0, 0.01, 40.0 * 2 * 2 + 30.0),
        (1.0, 2.0, 2 * 2 * (1.0 + 2 * 2.0) + 2 * 6 * 2 * 2 * 2.0),  # six rounds, and one call of warm-up less
    ],
)
def test_the_limit_is_that_of_the_whole_measurement(
    opening_s: float, call_s: float, total_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock()
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency_rounds, "time", clock)
    monkeypatch.setattr(latency_rounds.Ratio, "narrow", False)  # so that the limit alone ends the rounds
    monkeypatch.setattr(latency_rounds, "MOST_ROUNDS", 10**9)

    class Slow(Recorder):
        def run(self, images: Images) -> Outputs:
            clock.now += call_s
            return super().run(images)

    def start(name: str) -> Runtime:
        clock.now += opening_s
        return Slow(name, [])

    candidates = [_candidate(name, partial(start, name)) for name in "AB"]
    _measure(candidates, BenchOptions(batches=(1, 2), threads=1))
    assert clock.now == pytest.approx(total_s, abs=0.5)
