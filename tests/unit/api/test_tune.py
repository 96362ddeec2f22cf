from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from riformer_deploy.api.bench import bench_bundle
from riformer_deploy.api.tune import TuneOptions, tune_bundle
from riformer_deploy.api.tune_artifacts import ArtifactBuilder
from riformer_deploy.api.tune_inputs import check_bundle, task_of
from riformer_deploy.api.tune_judge import LiveJudge
from riformer_deploy.backends.base import Candidate
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, NormForm, OutputForm, Precision, RuntimeKind
from riformer_deploy.common.errors import ExportError, GateError, OptionError, RuntimeFailureError
from riformer_deploy.common.serialization import load_json
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.quantization.search import SearchTask
from riformer_deploy.quantization.search_records import Lane, SearchGate, Timed, TrialVerdict
from riformer_deploy.quantization.tune_result import TuneResult
from riformer_deploy.system.cuda_driver import Driver
from riformer_deploy.system.machine import usable_cores

OPTIONS = TuneOptions(calibration="random", threads=1)
Speeds = Callable[[LoweringConfig], float]


class Race:
    """Takes the clock's place: configs are as fast as a test says, and nothing is timed.

    Attributes:
        ms: Milliseconds of a config.
        left: How many races there are until the process is interrupted.
        taken: How many there were.
    """

    def __init__(self) -> None:
        self.ms: Speeds = lambda _config: 10.0
        self.left = 1000
        self.taken = 0

    def run(self, configs: Mapping[int, LoweringConfig]) -> Timed:
        if self.taken == self.left:
            raise KeyboardInterrupt
        self.taken += 1
        lanes = tuple(
            Lane(
                trial=number,
                batch=1,
                samples_ms=tuple(self.ms(config) * (1 + 0.001 * (n % 3)) for n in range(12)),
            )
            for number, config in configs.items()
        )
        return Timed(spent_s=0.1, lanes=lanes, failures={})


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Race:
    """Races without a clock, in a search of three norm forms of float32."""
    found = Race()

    def timed(_judge: LiveJudge, configs: Mapping[int, LoweringConfig], _seconds: float) -> Timed:
        return found.run(configs)

    monkeypatch.setattr(LiveJudge, "race", timed)

    def few(manifest: Manifest, options: TuneOptions, layers: tuple[str, ...]) -> SearchTask:
        task = task_of(manifest, options, layers)
        norms = task.dimensions[0]
        choices = tuple(choice for choice in norms.choices if choice.name != "layer")
        norms = dataclasses.replace(norms, choices=choices)
        return dataclasses.replace(task, plain=task.plain[:1], starts=(), dimensions=(norms,))

    monkeypatch.setattr("riformer_deploy.api.tune.task_of", few)
    return found


def moments_fast(config: LoweringConfig) -> float:
    return 5.0 if config.norm is NormForm.MOMENTS else 10.0


def logs(directory: Path) -> list[str]:
    return [path.name for path in directory.glob(".tune-*")]


def test_the_fastest_form_takes_the_place_of_its_precision_and_a_second_run_is_free(
    race: Race, tiny_bundle_copy: Path
) -> None:
    bench_bundle(tiny_bundle_copy, (Group.ONNX,), BenchOptions(batches=(1,), rounds=5, warmup=1, threads=1))
    before = Bundle.open(tiny_bundle_copy).manifest
    race.ms = moments_fast
    found = tune_bundle(tiny_bundle_copy, OPTIONS)
    assert found.trace.confirmed
    assert found.trace.complete
    assert found.answer.verdict is TrialVerdict.CONFIRMED
    assert found.answer.config.norm is NormForm.MOMENTS
    assert [trial.tried for trial in found.trace.trials] == [
        "the default form", "norm form: group", "norm form: moments",
    ]  # fmt: skip

    bundle = Bundle.open(tiny_bundle_copy)
    (graph,) = bundle.manifest.onnx
    assert (graph.file.path, graph.lowering.norm) == ("model.fp32.onnx", NormForm.MOMENTS)
    assert graph.file.sha256 == found.artifact_sha256 != before.onnx[0].file.sha256
    for record in bundle.manifest.files:
        bundle.path_of(record)
    parity = load_json(ParityResult, (tiny_bundle_copy / "parity.json").read_text())
    assert parity.status is Status.PASSED
    assert graph.file.sha256 in {candidate.artifact_sha256 for candidate in parity.candidates}
    assert "latency" not in bundle.manifest.results
    assert any("latency.json" in note and "replaced" in note for note in found.notes)
    assert load_json(TuneResult, (tiny_bundle_copy / "tune-onnx.json").read_text()) == found
    assert logs(tiny_bundle_copy) == []

    taken = race.taken
    assert tune_bundle(tiny_bundle_copy, OPTIONS) == found
    assert race.taken == taken
    other = dataclasses.replace(OPTIONS, gate=SearchGate(min_sqnr_db=60))
    assert tune_bundle(tiny_bundle_copy, other).key != found.key
    assert race.taken > taken


def test_where_nothing_is_faster_the_bundle_s_models_stay_as_they_are(
    race: Race, tiny_bundle_copy: Path
) -> None:
    before = Bundle.open(tiny_bundle_copy).manifest
    found = tune_bundle(tiny_bundle_copy, OPTIONS)
    assert not found.trace.confirmed
    assert found.answer.verdict is TrialVerdict.KEPT
    after = Bundle.open(tiny_bundle_copy).manifest
    assert found.artifact_sha256 == before.onnx[0].file.sha256
    assert dataclasses.replace(after, results=before.results) == before
    assert after.results.keys() - before.results.keys() == {"tune-onnx"}
    assert race.taken


def test_an_interrupted_search_is_taken_up_where_it_was(
    race: Race, tiny_bundle: Path, tiny_bundle_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    race.ms = moments_fast
    whole = Path(shutil.copytree(tiny_bundle, tmp_path / "whole"))
    expected, races = tune_bundle(whole, OPTIONS), race.taken
    race.taken, race.left = 0, 1
    with pytest.raises(KeyboardInterrupt):
        tune_bundle(tiny_bundle_copy, OPTIONS)
    assert len(logs(tiny_bundle_copy)) == 1
    race.left = 1000
    found = tune_bundle(tiny_bundle_copy, OPTIONS)
    assert "taking up an interrupted search: 4 steps are done" in caplog.text
    assert race.taken == races
    assert logs(tiny_bundle_copy) == []
    assert found.artifact_sha256 == expected.artifact_sha256
    assert [t.verdict for t in found.trace.trials] == [t.verdict for t in expected.trace.trials]


def test_what_cannot_be_built_is_named_with_its_reason(
    race: Race, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race.ms = moments_fast
    real = ArtifactBuilder._export

    def failing(builder: ArtifactBuilder, config: LoweringConfig, *rest: Any) -> Any:
        if config.norm is NormForm.MOMENTS:
            raise ExportError("no operator for this", details=["in block 3"])
        return real(builder, config, *rest)

    monkeypatch.setattr(ArtifactBuilder, "_export", failing)
    found = tune_bundle(tiny_bundle_copy, OPTIONS)
    (failed,) = (trial for trial in found.trace.trials if trial.verdict is TrialVerdict.FAILED)
    assert failed.judged.failure == "no operator for this; in block 3"
    assert not found.trace.confirmed


def test_an_answer_that_fails_parity_is_not_put_into_the_bundle(
    race: Race, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from riformer_deploy.api import tune_landing  # noqa: PLC0415  # what is patched
    from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance  # noqa: PLC0415

    race.ms = moments_fast
    strict = Tolerance(min_sqnr_db=300, stage_relative_l2=1e-5)
    monkeypatch.setattr(tune_landing, "TOLERANCES", {**TOLERANCES, Precision.FP32: strict})
    before = Bundle.open(tiny_bundle_copy).manifest
    found = tune_bundle(tiny_bundle_copy, OPTIONS)
    assert found.status is Status.FAILED
    assert any(note.startswith("parity: ") for note in found.notes)
    after = Bundle.open(tiny_bundle_copy).manifest
    assert (after.onnx, after.weights) == (before.onnx, before.weights)
    assert tune_bundle(tiny_bundle_copy, OPTIONS) == found


def test_a_gate_that_not_even_float32_holds_is_refused_with_the_figures(
    race: Race, tiny_bundle_copy: Path
) -> None:
    before = sorted(path.name for path in tiny_bundle_copy.iterdir())
    gate = SearchGate(min_sqnr_db=200)
    with pytest.raises(GateError, match=r"fp32, the default form: \d+\.\d+ dB"):
        tune_bundle(tiny_bundle_copy, dataclasses.replace(OPTIONS, gate=gate))
    assert sorted(path.name for path in tiny_bundle_copy.iterdir()) == before
    assert race.taken == 0


def test_engines_are_tuned_where_there_is_a_gpu(
    tiny_bundle: Path, no_gpu: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riformer_deploy.api.tune.query_driver", lambda: no_gpu)
    with pytest.raises(RuntimeFailureError, match="no NVIDIA driver"):
        tune_bundle(tiny_bundle, dataclasses.replace(OPTIONS, group=Group.ENGINE))


def test_where_no_plain_form_runs_it_is_no_matter_of_the_gate(
    race: Race, tiny_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_builder: ArtifactBuilder, _built: object) -> Candidate:
        raise RuntimeFailureError("it does not load")

    monkeypatch.setattr(ArtifactBuilder, "candidate", failing)
    with pytest.raises(RuntimeFailureError, match=r"fp32, the default form: it does not load"):
        tune_bundle(tiny_bundle_copy, OPTIONS)
    assert (race.taken, logs(tiny_bundle_copy)) == (0, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"group": Group.TORCH}, "a bundle is tuned for onnx, openvino, engine"),
        ({"batches": ()}, "batch sizes are positive"),
        ({"batches": (1, 1)}, "each once"),
        ({"max_seconds": 0.0}, "max-seconds must be a positive number"),
        ({"limit": 5}, "--limit is for the labelled pictures"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        dataclasses.replace(OPTIONS, **changes)
    assert OPTIONS.used_threads == 1
    assert dataclasses.replace(OPTIONS, threads=None).used_threads == usable_cores()


def test_a_bundle_of_maps_has_no_classes_to_gate_and_one_of_a_fixed_batch_takes_no_other(
    tiny_bundle: Path,
) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    graph = manifest.onnx[0]
    lowering = dataclasses.replace(graph.lowering, output_form=OutputForm.FEATURES)
    spec = dataclasses.replace(graph.inputs[0], shape=(4, *graph.inputs[0].shape[1:]))
    fixed = dataclasses.replace(graph, lowering=lowering, inputs=(spec,))
    wrong = dataclasses.replace(OPTIONS, data="pictures", gate=SearchGate(max_drop_points=0.1))
    with pytest.raises(OptionError) as refused:
        check_bundle(dataclasses.replace(manifest, onnx=(fixed,)), wrong)
    assert len(refused.value.details) == 3
    check_bundle(manifest, wrong)


def test_the_digits_in_openvino_within_a_limit_of_time(
    precise_bundle: Path,
    tmp_path: Path,
    calibration_file: Path,
    digits_data: dict[str, NDArray[Any]],
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (extra openvino)")
    bundle = Path(shutil.copytree(precise_bundle, tmp_path / "bundle"))
    np.savez(
        tmp_path / "val.npz", images=digits_data["val_images"][:64], labels=digits_data["val_labels"][:64]
    )
    gate = SearchGate(max_drop_points=2.0)
    options = TuneOptions(
        calibration=str(calibration_file),
        data=str(tmp_path / "val.npz"),
        group=Group.OPENVINO,
        gate=gate,
        max_seconds=2.0,
        threads=1,
    )
    found = tune_bundle(bundle, options)
    assert found.runtime is RuntimeKind.OPENVINO
    assert found.reference_top1_percent is not None
    assert found.reference_top1_percent > 90
    assert found.dataset is not None
    assert gate.holds(found.answer.judged)
    first = found.trace.trials[0].judged
    assert first.failure is None
    assert first.sqnr_db is not None
    assert first.sqnr_db > 100
    assert first.top1_percent == pytest.approx(found.reference_top1_percent)
    held = {graph.file.sha256 for graph in Bundle.open(bundle).manifest.onnx}
    assert found.artifact_sha256 in held
    assert tune_bundle(bundle, options) == found
