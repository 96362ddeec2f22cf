from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Method, NormForm, Precision, RuntimeKind
from riformer_deploy.quantization.search import search
from riformer_deploy.quantization.search_log import LoggedJudge, SearchStep
from riformer_deploy.quantization.search_records import Judged, SearchGate, SearchTrace, TrialVerdict
from tests.judges import Figures, Known, task


def beaten_by(trace: SearchTrace) -> list[int]:
    """Plain forms that the final run proves to be faster than the answer."""
    assert trace.answer is not None
    final = trace.races[-1]
    return [number for number in trace.rivals if final.faster(trace.answer, number)]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_figures_the_answer_holds_the_gate_and_is_not_slower_than_a_plain_form(
    seed: int,
) -> None:
    runtime = (RuntimeKind.ONNX_RUNTIME, RuntimeKind.OPENVINO, RuntimeKind.TENSORRT)[seed % 3]
    gate = SearchGate(
        min_sqnr_db=(None, 34.0)[seed % 2], max_drop_points=(None, 1.0, 0.3)[seed % 3 if seed > 5 else 0]
    )
    judge = Figures(seed, noise=(0.0, 0.02, 0.3)[seed % 3], batches=((1,), (1, 32))[seed % 2])
    trace = search(task(runtime, gate), judge)
    holding = [t for t in trace.trials[:1] if gate.holds(t.judged)]
    if trace.answer is None:
        assert not holding
        return
    answer = trace.trials[trace.answer]
    assert gate.holds(answer.judged)
    assert answer.verdict is (TrialVerdict.CONFIRMED if trace.confirmed else TrialVerdict.KEPT)
    assert trace.complete
    if trace.confirmed:
        final = trace.races[-1]
        ran = [number for number in trace.rivals if final.times_of(number)]
        assert ran
        assert all(final.faster(number, trace.answer) for number in ran)
    else:
        assert trace.answer in trace.rivals
        assert not trace.races or beaten_by(trace) == []
    if judge.noise == 0:
        for batch in judge.batches:
            alive = [n for n in trace.rivals if trace.trials[n].verdict is not TrialVerdict.FAILED]
            plain = [judge.true_ms(trace.trials[n].config, batch) for n in alive]
            if trace.confirmed:
                assert judge.true_ms(answer.config, batch) < min(plain)


@pytest.mark.parametrize("seed", range(8))
def test_with_one_speed_for_all_nothing_is_confirmed_but_what_is_plain(seed: int) -> None:
    class Alike(Figures):
        def true_ms(self, _config: LoweringConfig, batch: int) -> float:
            return 10.0 * batch

    trace = search(task(), Alike(seed, failing=0.0, noise=0.05))
    assert not trace.confirmed
    assert trace.answer in trace.rivals
    # float32 stays, unless chance proves another one faster
    assert trace.answer == 0 or trace.races[-1].faster(0, trace.answer)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("limit", [5.0, 30.0, 90.0, 300.0])
def test_the_limit_of_time_is_kept_and_the_answer_is_as_safe(seed: int, limit: float) -> None:
    judge = Figures(seed)
    trace = search(task(max_seconds=limit), judge)
    assert trace.spent_s == pytest.approx(judge.spent_s)
    # before there was a first race, what races take beyond their rounds is not known: once, of three lanes
    assert judge.spent_s <= max(limit, 2.0) + 0.75
    if trace.answer is not None and not trace.confirmed:
        assert trace.answer in trace.rivals
    if limit <= 30:
        assert not trace.complete
    raced = {lane.trial for race in trace.races for lane in race.lanes}
    late = [t.number for t in trace.trials if t.verdict is TrialVerdict.NOT_COMPARED]
    assert not raced & set(late)
    assert not late or not trace.complete


def test_more_time_tries_more() -> None:
    counts = [len(search(task(max_seconds=limit), Figures(3)).trials) for limit in (10.0, 60.0, 1000.0)]
    assert counts == sorted(set(counts))


class KilledError(Exception):
    """The process is gone."""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(6))
def test_a_search_that_was_interrupted_anywhere_goes_on_as_if_it_had_not_been(seed: int) -> None:
    class Log:
        def __init__(self, left: int | None = None) -> None:
            self.records: list[SearchStep] = []
            self.left = left

        def add(self, record: SearchStep) -> None:
            if self.left == len(self.records):
                raise KilledError
            self.records.append(record)

    limit = (None, 150.0)[seed % 2]
    whole = Log()
    expected = search(task(max_seconds=limit), LoggedJudge(Figures(seed), whole))
    for cut in range(0, len(whole.records), 7):
        log = Log(cut)
        with pytest.raises(KilledError):
            search(task(max_seconds=limit), LoggedJudge(Figures(seed), log))
        log.left = None
        again = Figures(seed)
        again.asked = cut  # its noise depends on how often it was asked
        assert search(task(max_seconds=limit), LoggedJudge(again, log)) == expected
        assert log.records == whole.records


def test_a_log_of_another_way_is_not_believed() -> None:
    class Log:
        records: list[SearchStep] = [SearchStep(asked="0" * 64, judged=Judged(spent_s=1.0))]  # noqa: RUF012

        def add(self, record: SearchStep) -> None:
            pass

    expected = search(task(), Figures(1))
    assert search(task(), LoggedJudge(Figures(1), Log())) == expected


def _answer(trace: SearchTrace) -> LoweringConfig:
    assert trace.answer is not None
    return trace.trials[trace.answer].config


def test_choices_that_gain_are_put_together() -> None:
    def ms(config: LoweringConfig) -> float:
        return (
            10.0
            * {Precision.INT8: 0.8}.get(config.precision, 1.0)
            * {NormForm.GROUP: 0.8, NormForm.MOMENTS: 0.9}.get(config.norm, 1.0)
            * (0.9 if "head.fc" in config.exclude_layers else 1.0)
            * (1.1 if "backbone.patch_embed.proj" in config.exclude_layers else 1.0)
        )

    trace = search(task(), Known(ms))
    found = _answer(trace)
    assert trace.confirmed
    assert (found.precision, found.norm, found.exclude_layers) == (
        Precision.INT8, NormForm.GROUP, ("head.fc",),
    )  # fmt: skip
    assert trace.answer is not None
    assert trace.speed_up_of(trace.answer) == pytest.approx(1 / (0.8 * 0.8 * 0.9), rel=0.01)


def test_a_gate_that_the_default_misses_is_reached_by_better_ranges_and_layers_in_the_base() -> None:
    def sqnr(config: LoweringConfig) -> float:
        if not config.precision.is_quantized:
            return 90.0
        return 33.0 + 2 * (config.method is Method.PERCENTILE) + 2 * len(config.exclude_layers)

    trace = search(
        task(gate=SearchGate(min_sqnr_db=38)),
        Known(lambda c: (5.0 if c.precision is Precision.INT8 else 10.0) + 0.5 * len(c.exclude_layers), sqnr),
    )
    found = _answer(trace)
    assert trace.confirmed
    assert found.method is Method.PERCENTILE
    # 35 dB with these ranges: two groups of one layer each are enough, and more would be slower
    assert len(found.exclude_layers) == 2
    starts = [t for t in trace.trials if t.config.precision is Precision.INT8]
    assert starts[0].verdict is TrialVerdict.OUTSIDE


def test_where_int8_is_slower_the_fastest_plain_form_is_kept_and_nothing_is_said_to_be_confirmed() -> None:
    def ms(config: LoweringConfig) -> float:
        return {Precision.FP32: 10.0, Precision.BF16: 9.0}.get(config.precision, 20.0)

    trace = search(task(), Known(ms))
    assert not trace.confirmed
    assert _answer(trace).precision is Precision.BF16
    assert trace.trials[trace.answer or 0].verdict is TrialVerdict.KEPT


def test_a_plain_form_outside_the_gate_is_not_the_answer_however_fast() -> None:
    def sqnr(config: LoweringConfig) -> float:
        return {Precision.FP32: 120.0, Precision.FP16: 66.0}.get(config.precision, 45.0)

    trace = search(
        task(gate=SearchGate(min_sqnr_db=60)),
        Known(lambda c: 10.0 if c.precision is Precision.FP32 else 5.0 if c.norm_io is c.base else 8.0, sqnr),
    )
    assert _answer(trace).precision is Precision.FP16


def test_a_gate_that_nothing_holds_has_no_answer_and_tries_no_more_than_the_plain_forms() -> None:
    trace = search(task(gate=SearchGate(min_sqnr_db=200)), Known(lambda _: 10.0))
    assert (trace.answer, trace.confirmed) == (None, False)
    assert len(trace.trials) == 3


def test_what_the_bundle_holds_is_not_replaced_by_a_plain_form_that_is_no_faster() -> None:
    held = LoweringConfig(norm=NormForm.GROUP)

    def alike(config: LoweringConfig) -> float:
        return 10.0 if config.precision is Precision.FP32 else 11.0

    trace = search(task(held=(held,)), Known(alike))
    assert _answer(trace) == held
    assert not trace.confirmed
    slower = search(task(held=(held,)), Known(lambda c: 12.0 if c.norm is NormForm.GROUP else alike(c)))
    assert _answer(slower).norm is NormForm.INSTANCE


def test_a_more_accurate_choice_of_the_same_speed_is_taken_before_the_default() -> None:
    def sqnr(config: LoweringConfig) -> float:
        return 36.0 + (config.method is Method.MAX) if config.precision.is_quantized else 90.0

    trace = search(task(), Known(lambda c: 5.0 if c.precision is Precision.INT8 else 10.0, sqnr))
    assert trace.confirmed
    assert _answer(trace).method is Method.MAX


def test_what_failed_is_named_with_its_reason() -> None:
    trace = search(task(), Figures(4, failing=0.5))
    failed = [t for t in trace.trials if t.verdict is TrialVerdict.FAILED]
    assert failed
    assert {t.judged.failure for t in failed} <= {"it cannot be built", "while it was timed: it crashed"}
    assert all(t.verdict is not TrialVerdict.FAILED for t in trace.trials if t.judged.failure is None)


def test_a_trace_whose_final_run_does_not_confirm_its_answer_is_refused() -> None:
    trace = search(task(), Known(lambda c: 5.0 if c.precision is Precision.INT8 else 10.0))
    assert trace.confirmed
    with pytest.raises(ValueError, match="the final run does not say so"):
        dataclasses.replace(trace, answer=trace.rivals[0])


@pytest.mark.parametrize(("slower", "searched"), [(4.0, False), (2.5, True)])
def test_a_precision_that_is_far_slower_to_begin_with_is_not_searched(
    slower: float, *, searched: bool
) -> None:
    def ms(config: LoweringConfig) -> float:
        return 10.0 * (slower if config.precision is Precision.FP16 else 1.0)

    trace = search(task(), Known(ms))
    forms = [trial for trial in trace.trials if trial.config.precision is Precision.FP16]
    assert (len(forms) > 1) is searched
    assert forms[0].number in trace.rivals  # the final run compares with it all the same


def test_a_precision_is_kept_where_what_is_faster_does_not_hold_the_gate() -> None:
    def ms(config: LoweringConfig) -> float:
        return 50.0 if config.precision is Precision.FP32 else 10.0

    def sqnr_db(config: LoweringConfig) -> float:
        return 120.0 if config.precision is Precision.FP32 else 40.0

    trace = search(task(gate=SearchGate(min_sqnr_db=100)), Known(ms, sqnr_db))
    assert _answer(trace).precision is Precision.FP32
    assert sum(trial.config.precision is Precision.FP32 for trial in trace.trials) > 1
