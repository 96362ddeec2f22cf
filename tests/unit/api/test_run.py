from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.api import run as api_run
from riformer_deploy.api import run_answer, run_context, run_engines, run_graphs
from riformer_deploy.api.export import ExportOptions, LoweringConfig, export_checkpoint
from riformer_deploy.api.run import RunOptions, RunReport, RunStep, StepOutcome, Target, run_checkpoint
from riformer_deploy.api.run_context import read_record
from riformer_deploy.backends import gpu_candidates
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import CompileMode, InputForm, Precision, Processor, RuntimeKind
from riformer_deploy.common.errors import BundleConflictError, MissingDependencyError, OptionError
from riformer_deploy.common.progress import Progress
from riformer_deploy.evaluation.accuracy_results import AccuracyResult, compare_accuracy
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import Status
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.reporting.evidence import Evidence, read_evidence
from riformer_deploy.system.cuda_driver import Driver, Gpu

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
Asked = Callable[..., RunOptions]
DONE, REUSED, SKIPPED, FAILED = StepOutcome.DONE, StepOutcome.REUSED, StepOutcome.SKIPPED, StepOutcome.FAILED


def _absent(*_: object) -> None:
    raise MissingDependencyError("It is not installed.", remedy="Run: pip install it")


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Jinja2 is not installed: drawing plots takes longer than the rest of a run."""
    monkeypatch.setattr(api_run, "report_bundle", _absent)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[ExportOptions]:
    """What a run would export; it is interrupted there, since exporting takes seconds."""
    seen: list[ExportOptions] = []

    def interrupted(options: ExportOptions, _progress: Progress) -> None:
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_graphs, "export_checkpoint", interrupted)
    return seen


def _outcomes(report: RunReport) -> dict[str, StepOutcome]:
    """By name; of an export that is several steps, what became of the graphs."""
    return {step.name: step.outcome for step in report.steps if step.outcome is not SKIPPED}


def _text(report: RunReport, name: str) -> str:
    return " | ".join(step.text for step in report.steps if step.name == name)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _sha256(folder: Path) -> dict[str, str]:
    return {record.path: record.sha256 for record in Bundle.open(folder).manifest.files}


def test_a_finished_run_is_reused_as_a_whole_and_answers_the_same(finished_copy: Path, asked: Asked) -> None:
    before = _contents(finished_copy)
    report = run_checkpoint(asked(finished_copy))
    assert _outcomes(report) == dict.fromkeys(("export", "parity", "accuracy", "bench", "report"), REUSED)
    assert _contents(finished_copy) == before
    (choice,) = report.choices
    assert (report.status, choice.batch) == (Status.PASSED, 1)
    assert choice.sha256 == _sha256(finished_copy)[choice.file]
    assert choice.speed_up is not None
    assert choice.baseline is not None
    assert choice.baseline.startswith("PyTorch float32")
    assert choice.pictures == 21
    assert f"ship {choice.file}" in report.answer
    assert "calibration" in _text(report, "export")  # why there is no int8
    assert report.next_command[0] == "run"
    assert report.next_command[-2:] == ("--calibration", "FOLDER")
    assert shlex.join(report.next_command).count("--batch 1 --max-seconds 0.01") == 1  # nothing is lost
    assert report.report == str(finished_copy / "report.html")


def test_another_gate_judges_the_same_answers_anew(finished_copy: Path, asked: Asked) -> None:
    before = _sha256(finished_copy)
    report = run_checkpoint(asked(finished_copy, max_drop_points=0.5))
    assert _outcomes(report) == {
        "export": REUSED,
        "parity": REUSED,
        "accuracy": REUSED,
        "bench": REUSED,
        "report": DONE,
    }
    after = _sha256(finished_copy)
    assert after["accuracy.csv"] == before["accuracy.csv"]
    accuracy = read_evidence(finished_copy).accuracy
    assert accuracy is not None
    assert accuracy.max_drop_points == 0.5


@pytest.mark.usefixtures("without_report")
def test_other_pictures_are_measured_and_nothing_else(
    finished_copy: Path, asked: Asked, labelled_pictures: Path, tmp_path: Path
) -> None:
    pictures = Path(shutil.copytree(labelled_pictures, tmp_path / "pictures"))
    (pictures / "class 0" / "0.png").unlink()
    report = run_checkpoint(asked(finished_copy, data=pictures))
    assert [name for name, outcome in _outcomes(report).items() if outcome is DONE] == ["accuracy"]
    assert report.choices[0].pictures == 20


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_other_batch_sizes_are_timed_and_nothing_else(finished_copy: Path, asked: Asked) -> None:
    report = run_checkpoint(asked(finished_copy, batches=(1, 2)))
    assert [name for name, outcome in _outcomes(report).items() if outcome is DONE] == ["bench"]
    assert [choice.batch for choice in report.choices] == [1, 2]
    again = run_checkpoint(asked(finished_copy, batches=(2,)))  # the same session holds it
    assert _outcomes(again)["bench"] is REUSED
    assert [choice.batch for choice in again.choices] == [2]


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_more_time_is_taken_only_where_the_last_run_allowed_less(finished_copy: Path, asked: Asked) -> None:
    assert _outcomes(run_checkpoint(asked(finished_copy, max_seconds=0.005)))["bench"] is REUSED
    report = run_checkpoint(asked(finished_copy, max_seconds=0.02))
    assert _text(report, "bench").endswith("(more time is allowed now)")
    assert _outcomes(run_checkpoint(asked(finished_copy, max_seconds=0.02)))["bench"] is REUSED


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_calibration_images_remake_what_depends_on_them(
    finished_copy: Path, asked: Asked, calibration_pictures: Path
) -> None:
    before = _sha256(finished_copy)
    report = run_checkpoint(asked(finished_copy, calibration=calibration_pictures))
    assert _text(report, "export").startswith("fp16, int8 (")
    after = _sha256(finished_copy)
    assert after["model.fp32.onnx"] == before["model.fp32.onnx"]
    assert "model.int8.onnx" in after
    assert "model.fp8.onnx" not in after  # processors emulate it
    assert {name for name, outcome in _outcomes(report).items() if outcome is REUSED} == {"parity"}
    again = run_checkpoint(asked(finished_copy, calibration=calibration_pictures))
    assert set(_outcomes(again).values()) == {REUSED}


def test_other_calibration_images_remake_what_was_calibrated(
    precise_bundle: Path, digits_checkpoint: Path, exports: list[ExportOptions]
) -> None:
    options = RunOptions(
        checkpoint=digits_checkpoint,
        output=precise_bundle,
        target=Target.CPU,
        image_size_px=(64, 64),
        calibration="random",
    )
    with pytest.raises(KeyboardInterrupt):
        run_checkpoint(options)
    assert [options.precisions for options in exports] == [(Precision.FP16, Precision.INT8)]
    assert all(config.calibration is None and not config.ranges for config in exports[0].lowerings)


def test_a_new_precision_takes_the_inputs_of_the_graphs_that_are_there(
    finished_copy: Path, asked: Asked, calibration_pictures: Path, exports: list[ExportOptions]
) -> None:
    manifest = finished_copy / "bundle.json"
    text = manifest.read_text(encoding="utf-8")
    assert '"input_form": "normalised"' in text
    manifest.write_text(text.replace('"input_form": "normalised"', '"input_form": "uint8"'), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        run_checkpoint(asked(finished_copy, calibration=calibration_pictures))
    forms = {config.precision: config.input_form for config in exports[0].lowerings}
    assert forms == dict.fromkeys((Precision.FP16, Precision.INT8), InputForm.UINT8)


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize(
    ("file", "done"),
    [
        pytest.param("model.fp16.onnx", "export", marks=pytest.mark.slow),
        ("parity.json", "parity"),
        ("accuracy.csv", "accuracy"),
        ("latency.json", "bench"),
    ],
)
def test_what_was_damaged_is_made_again(finished_copy: Path, asked: Asked, file: str, done: str) -> None:
    (finished_copy / file).write_text("damaged", encoding="utf-8")
    report = run_checkpoint(asked(finished_copy))
    assert _outcomes(report)[done] is DONE
    bundle = Bundle.open(finished_copy)
    assert all(bundle.path_of(record) for record in bundle.manifest.files)


def test_a_damaged_report_is_written_again_and_nothing_else(finished_copy: Path, asked: Asked) -> None:
    (finished_copy / "report.html").write_text("damaged", encoding="utf-8")
    report = run_checkpoint(asked(finished_copy))
    assert [name for name, outcome in _outcomes(report).items() if outcome is DONE] == ["report"]


def test_another_checkpoint_replaces_a_bundle_only_by_force(
    finished_copy: Path, asked: Asked, other_checkpoint: Path, request: pytest.FixtureRequest
) -> None:
    before = _contents(finished_copy)
    with pytest.raises(BundleConflictError, match="another checkpoint"):
        run_checkpoint(asked(finished_copy, checkpoint=other_checkpoint, data=None))
    exports: list[ExportOptions] = request.getfixturevalue("exports")
    with pytest.raises(KeyboardInterrupt):
        run_checkpoint(asked(finished_copy, checkpoint=other_checkpoint, data=None, force=True))
    assert [(o.precisions, o.force) for o in exports] == [((Precision.FP32, Precision.FP16), True)]
    assert _contents(finished_copy) == before


def test_a_changed_preparation_of_pictures_remakes_every_graph(
    finished_copy: Path, asked: Asked, exports: list[ExportOptions]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_checkpoint(asked(finished_copy, image_size_px=(64, 64)))
    assert [options.precisions for options in exports] == [(Precision.FP32, Precision.FP16)]


@pytest.mark.usefixtures("without_report")
def test_an_engine_that_is_there_is_kept_and_those_that_lack_are_built(
    engine_bundle_copy: Path, asked: Asked, no_gpu: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "query_driver", lambda: no_gpu)
    before = _sha256(engine_bundle_copy)
    report = run_checkpoint(asked(engine_bundle_copy, target=Target.GPU, data=None))
    assert _outcomes(report) == {
        "export": DONE,
        "build fp32": REUSED,
        "build fp16": DONE,
        "parity": REUSED,
    }
    after = _sha256(engine_bundle_copy)
    kept = "model.fp32.tensorrt-rtx.engine"
    assert after[kept] == before[kept]
    assert "model.fp16.tensorrt-rtx.engine" in after
    assert no_gpu.problem is not None
    assert no_gpu.problem in _text(report, "bench")
    assert (report.choices, report.status) == ((), Status.PASSED)
    assert "nothing is chosen" in report.answer
    assert f"{kept}, model.fp16.tensorrt-rtx.engine were never run" in report.answer


@pytest.mark.usefixtures("without_report")
def test_what_is_not_installed_is_said_and_does_not_stop_the_rest(
    finished_copy: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_engines, "choose_backend", _absent)
    (finished_copy / "report.html").unlink()
    report = run_checkpoint(asked(finished_copy, target=Target.AUTO))
    for name in ("build", "report"):
        (step,) = [step for step in report.steps if step.name == name]
        assert (step.outcome, step.text) == (SKIPPED, "It is not installed. Run: pip install it")
    assert (report.report, len(report.choices)) == (None, 1)


@pytest.mark.usefixtures("without_report")
def test_a_run_waits_for_no_baseline_that_compiles_for_minutes(
    finished_copy: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(name="a GPU", compute_capability="9.0", memory_bytes=2**30)
    driver = Driver(cuda_version="13.0", gpus=(gpu,), problem=None)
    for module in (run_context, gpu_candidates):
        monkeypatch.setattr(module, "query_driver", lambda: driver)
    monkeypatch.setattr(run_engines, "choose_backend", _absent)
    run_checkpoint(asked(finished_copy, target=Target.AUTO, batches=(2,)))
    latency = read_evidence(finished_copy).latency
    assert latency is not None
    ways = {item.config for item in latency.skipped if item.config.runtime is RuntimeKind.PYTORCH}
    assert {way.processor for way in ways} == {Processor.GPU}
    assert {way.mode for way in ways} == {None, CompileMode.REDUCE_OVERHEAD}


@pytest.mark.usefixtures("noisy_openvino", "without_report")
def test_a_pair_whose_parity_failed_is_never_chosen(finished_copy: Path, asked: Asked) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (extra openvino)")
    (finished_copy / "parity.json").unlink()
    report = run_checkpoint(asked(finished_copy))
    assert _outcomes(report)["parity"] is DONE
    assert report.choices[0].runtime is RuntimeKind.ONNX_RUNTIME
    assert any(text.startswith("OpenVINO fp32 (model.fp32.onnx)") for text in report.refused)
    assert "Not to be shipped: OpenVINO fp32" in report.answer


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_a_precision_that_fails_parity_is_left_out_and_not_tried_again(
    finished_copy: Path, asked: Asked, calibration_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = dataclasses.replace(TOLERANCES[Precision.INT8], min_sqnr_db=300.0)
    with monkeypatch.context() as patch:
        patch.setitem(TOLERANCES, Precision.INT8, strict)
        report = run_checkpoint(asked(finished_copy, calibration=calibration_pictures, data=None))
    assert _outcomes(report)["export int8"] is FAILED
    assert "at least 300 is needed" in _text(report, "export int8")
    assert (report.status, "model.int8.onnx" in _sha256(finished_copy)) == (Status.PASSED, False)
    again = run_checkpoint(asked(finished_copy, calibration=calibration_pictures, data=None))
    assert _outcomes(again)["export int8"] is FAILED
    assert _outcomes(again)["export"] is REUSED
    assert [item.precision for item in read_record(Bundle.open(finished_copy)).failed] == [Precision.INT8]


@pytest.mark.untraced
def test_nothing_is_written_where_float32_fails_parity(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        TOLERANCES, Precision.FP32, dataclasses.replace(TOLERANCES[Precision.FP32], stage_relative_l2=1e-30)
    )
    report = run_checkpoint(asked(tmp_path / "bundle"))
    assert (report.status, report.bundle, report.choices) == (Status.FAILED, None, ())
    assert "nothing was written" in report.answer
    assert not (tmp_path / "bundle").exists()


def test_a_batch_size_of_which_nothing_holds_the_gate_fails(
    finished_copy: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(accuracy: AccuracyResult) -> AccuracyResult:
        comparisons = tuple(
            compare_accuracy(
                c.config, c.baseline, lost=2, gained=0, changed=2, images=21, max_drop_points=1.0
            )
            for c in accuracy.comparisons
        )
        found = dataclasses.replace(accuracy)
        object.__setattr__(found, "comparisons", comparisons)
        object.__setattr__(found, "max_drop_points", 1.0)
        return found

    def read(path: Path) -> Evidence:
        evidence = read_evidence(path)
        assert evidence.accuracy is not None
        return dataclasses.replace(evidence, accuracy=worse(evidence.accuracy))

    monkeypatch.setattr(run_answer, "read_evidence", read)
    report = run_checkpoint(asked(finished_copy))
    assert (report.status, report.choices) == (Status.FAILED, ())
    assert "ONNX Runtime fp32: top-1 drops by 9.52 points, 1 are allowed" in report.refused
    assert "nothing is to be shipped" in report.answer
    assert report.next_command == ("inspect", str(finished_copy))


@pytest.mark.usefixtures("without_report")
def test_nothing_is_chosen_that_was_not_held_to_the_gate(
    finished_copy: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = RunStep(name="accuracy", outcome=FAILED, text="out of memory")
    monkeypatch.setattr(api_run, "measure_accuracy", lambda _context: failed)
    report = run_checkpoint(asked(finished_copy, max_drop_points=0.5))  # the stored figures had no gate
    assert (report.status, report.choices) == (Status.FAILED, ())
    assert any(text.startswith("accuracy failed in this run") for text in report.unverified)


def test_the_baseline_is_of_the_target_too(
    finished_copy: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> Evidence:
        evidence = read_evidence(path)
        assert evidence.latency is not None
        baseline = next(s for s in evidence.latency.samples if s.config.runtime is RuntimeKind.PYTORCH)
        config = dataclasses.replace(baseline.config, processor=Processor.GPU)
        quick = tuple(ms / 1000 for ms in baseline.samples_ms)
        summary = summarize(np.array(quick), baseline.batch)
        on_gpu = dataclasses.replace(baseline, config=config, samples_ms=quick, summary=summary)
        wider = dataclasses.replace(evidence.latency, samples=(*evidence.latency.samples, on_gpu))
        return dataclasses.replace(evidence, latency=wider, sessions=(wider,))

    before = run_checkpoint(asked(finished_copy)).choices
    monkeypatch.setattr(run_answer, "read_evidence", read)
    assert run_checkpoint(asked(finished_copy)).choices == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_drop_points": 1.0, "data": None}, "name them with --data"),
        ({"max_drop_points": -1.0}, "from 0 to 100"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"batches": (0,)}, "batches must be positive"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(
    asked: Asked, options: dict[str, object], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        asked(Path("bundle"), **options)


def _killed(line: list[str], folder: Path, due: Callable[[], bool]) -> None:
    """Start a run in a process of its own, and kill it as soon as ``due``."""
    log = folder / "killed.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(line, cwd=folder, stdout=stream, stderr=stream)  # noqa: S603 (ours)
        deadline = time.monotonic() + 120
        while not due():
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    assert process.wait() == -signal.SIGKILL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Killable:
    """A run in a process of its own, on enough pictures for several batches.

    Attributes:
        options: The same run in this process.
        line: Its command.
    """

    options: RunOptions
    line: list[str]

    @property
    def bundle(self) -> Path:
        return Path(self.options.output or "")

    def said(self, text: str) -> bool:
        """Whether the process that was started last printed this."""
        return text in (self.bundle.parent / "killed.log").read_text(encoding="utf-8")

    def answered(self) -> bool:
        """Whether its accuracy pass has stored the answers to more than one batch."""
        logs = self.bundle.glob(".accuracy-*.jsonl")
        return any(len(path.read_bytes().splitlines()) > 2 for path in logs)

    def export(self) -> dict[str, str]:
        """The graphs, by the library; the hashes of the bundle's files."""
        lowerings = (LoweringConfig(), LoweringConfig(precision=Precision.FP16))
        report = export_checkpoint(
            ExportOptions(
                checkpoint=self.options.checkpoint,
                output=self.bundle,
                image_size_px=(64, 48),
                lowerings=lowerings,
            )
        )
        assert report.status is Status.PASSED
        return _sha256(self.bundle)


@pytest.fixture
def killable(tmp_path: Path, asked: Asked, labelled_pictures: Path) -> Killable:
    """A run that was not started."""
    bundle, pictures = tmp_path / "bundle", tmp_path / "pictures"
    for source in labelled_pictures.rglob("*.png"):
        folder = pictures / source.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(20):
            os.link(source, folder / f"{number}-{source.name}")
    options = asked(bundle, data=pictures)
    line = [str(Path(sys.executable).parent / "riformer-deploy"), "run", str(options.checkpoint)]
    line += ["-o", str(bundle), "--target", "cpu", "--data", str(pictures), "--image-size", "64x48"]
    return Killable(options=options, line=[*line, "--batch", "1", "--max-seconds", "600"])


@pytest.mark.usefixtures("without_report")
def test_a_killed_run_goes_on_where_it_was(killable: Killable, tmp_path: Path) -> None:
    graphs, bundle = killable.export(), killable.bundle
    _killed(killable.line, tmp_path, killable.answered)  # inside the accuracy pass
    assert "accuracy" not in Bundle.open(bundle).manifest.results
    report = run_checkpoint(killable.options)
    assert _outcomes(report) == {"export": REUSED, "parity": REUSED, "accuracy": DONE, "bench": DONE}
    accuracy = read_evidence(bundle).accuracy
    assert accuracy is not None
    assert accuracy.resumed_from >= 32
    assert graphs.items() <= _sha256(bundle).items()
    assert not list(bundle.glob(".*"))


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_a_run_that_is_killed_again_and_again_gets_there(killable: Killable, tmp_path: Path) -> None:
    line, bundle = killable.line, killable.bundle
    _killed(line, tmp_path, lambda: killable.said("exporting fp32"))  # inside the export
    assert not (bundle / "bundle.json").exists()
    graphs = killable.export()
    _killed(line, tmp_path, killable.answered)  # inside the accuracy pass
    assert "accuracy" not in Bundle.open(bundle).manifest.results
    _killed(line, tmp_path, lambda: killable.said("preparing"))  # between accuracy and bench
    accuracy = read_evidence(bundle).accuracy
    assert accuracy is not None
    assert accuracy.resumed_from >= 32
    report = run_checkpoint(killable.options)
    assert _outcomes(report) == {"export": REUSED, "parity": REUSED, "accuracy": REUSED, "bench": DONE}
    assert graphs.items() <= _sha256(bundle).items()
    assert not list(bundle.glob(".*"))
