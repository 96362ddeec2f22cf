"""The pass itself, with models whose answers are known, and the digits whose accuracy is."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle
from riformer_deploy.backends.base import BatchRange, Candidate, Outputs
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import DatasetError, OptionError, RuntimeFailureError
from riformer_deploy.common.serialization import load_json
from riformer_deploy.data.class_folders import ClassList
from riformer_deploy.data.datasets import Dataset, Sample, open_dataset
from riformer_deploy.data.loader import LoaderOptions
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.accuracy import AccuracyTask, answers_table, measure_accuracy
from riformer_deploy.evaluation.accuracy_results import AccuracyResult
from riformer_deploy.evaluation.results import Status
from riformer_deploy.model.variants import VARIANTS
from tests.candidates import labelled

CLASSES = 10
PLAIN = Preprocessing(resize_short_edge_px=None, crop_px=(1, 1), mean=(0, 0, 0), std=(1, 1, 1))


class Knowing:
    """Reads the class off the first channel; ``wrong`` has other answers by picture, the second channel."""

    def __init__(self, wrong: Mapping[int, float], fails_after: int | None = None) -> None:
        self.wrong, self.fails_after = wrong, fails_after
        self.seen: list[int] = []
        self.closed = False

    def run(self, images: Images) -> Outputs:
        if self.fails_after is not None and len(self.seen) >= self.fails_after:
            raise RuntimeFailureError("the power went")
        logits = np.zeros((len(images), CLASSES), np.float32)
        for row, image in enumerate(images):
            label, number = int(image[0, 0, 0]), int(image[1, 0, 0])
            self.seen.append(number)
            answer = self.wrong.get(number, label)
            logits[row, label] = 1
            if np.isnan(answer):
                logits[row, 3] = np.nan
            else:
                logits[row, int(answer)] = 2
        return {"logits": logits}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def dataset(count: int = 20, identity: str = "these") -> Dataset:
    """Picture ``n`` is of class ``n % 10``; its pixel is (class, n, 0)."""
    pixels = np.array([(number % CLASSES, number, 0) for number in range(count)], np.uint8)
    samples = [Sample(name=f"p{n}", label=n % CLASSES, index=n) for n in range(count)]
    return Dataset(
        location="here", layout="made", samples=tuple(samples), total=count, identity=identity,
        arrays=pixels.reshape(count, 1, 1, 3),
    )  # fmt: skip


def entry(name: str, model: Knowing, batch: int | None = None) -> Candidate:
    return Candidate(
        config=labelled(name),
        artifact_sha256=name,
        batches=BatchRange.of(batch),
        open=lambda: model,
    )


def task(*entries: Candidate, data: Dataset | None = None, **settings: Any) -> AccuracyTask:
    loader = LoaderOptions(preprocessing=PLAIN, batch=3, workers=2)
    return AccuracyTask(candidates=entries, dataset=data or dataset(), loader=loader, **settings)


def test_every_artifact_is_measured_and_compared_in_one_pass() -> None:
    base, other = Knowing({0: 5, 1: 6}), Knowing({1: 7, 2: 5, 3: 5, 4: 5})
    counts: list[tuple[int, int]] = []
    measured = measure_accuracy(
        task(entry("base", base), entry("other", other, batch=2)), lambda *args: counts.append(args)
    )
    result = measured.result
    assert [item.top1.right for item in result.artifacts] == [18, 16]
    assert [item.top5.right for item in result.artifacts] == [20, 20]
    (comparison,) = result.comparisons
    assert (comparison.lost, comparison.gained, comparison.changed) == (3, 1, 5)
    assert comparison.drop_points == pytest.approx(10)
    assert comparison.p_value == 0.625
    assert result.status is Status.PASSED
    assert counts == [(done, 20) for done in (0, 3, 6, 9, 12, 15, 18, 20)]
    assert base.seen == list(range(20))
    assert base.closed
    assert other.closed


@pytest.mark.parametrize(("limit", "status"), [(9.9, Status.FAILED), (10.0, Status.PASSED)])
def test_the_gate_fails_the_result(limit: float, status: Status) -> None:
    entries = (entry("base", Knowing({})), entry("other", Knowing({0: 1, 1: 2})))
    assert measure_accuracy(task(*entries, max_drop_points=limit)).result.status is status


def test_a_gate_needs_something_to_compare_with() -> None:
    with pytest.raises(OptionError, match="only one takes part"):
        task(entry("one", Knowing({})), max_drop_points=1)
    with pytest.raises(OptionError, match="from 0 to 100"):
        task(entry("one", Knowing({})), entry("two", Knowing({})), max_drop_points=float("nan"))


def test_scores_that_are_not_finite_are_wrong_and_counted() -> None:
    measured = measure_accuracy(task(entry("base", Knowing({})), entry("bad", Knowing({7: np.nan}))))
    bad = measured.result.artifacts[1]
    assert (bad.not_finite, bad.top1.right, bad.top5.right) == (1, 19, 19)
    assert measured.answers.predicted[1][7] == -1
    assert measured.answers.scores[1][7] == 0


def test_broken_pictures_are_counted_named_and_left_out_of_every_figure(tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (1, 1), (0, number, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    (tmp_path / "4.png").unlink()
    samples = tuple(Sample(name=f"{n}.png", label=0, path=tmp_path / f"{n}.png") for n in range(6))
    data = Dataset(location="here", layout="made", samples=samples, total=6, identity="x")
    measured = measure_accuracy(task(entry("base", Knowing({0: 3})), data=data))
    assert [item.image for item in measured.result.broken] == ["2.png", "4.png"]
    assert measured.result.artifacts[0].images == 4
    assert measured.result.artifacts[0].top1.right == 3
    rows = list(csv.reader(io.StringIO(answers_table(measured, data))))
    assert rows[0] == ["picture", "label", "base: class", "base: place", "base: score"]
    sure, unsure = (str(round(float(np.exp(2) / (np.exp(2) + rest)), 6)) for rest in (9, np.e + 8))
    assert rows[1] == ["0.png", "0", "3", "1", unsure]
    assert rows[2:] == [[f"{number}.png", "0", "0", "0", sure] for number in (1, 3, 5)]
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="None of the 6 pictures"):
        measure_accuracy(task(entry("base", Knowing({})), data=data))


def test_an_interruption_carries_how_much_is_done_where_that_is_kept(tmp_path: Path) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    for folder, notes in ((tmp_path, ["6 of 20 pictures are done"]), (None, [])):
        with pytest.raises(KeyboardInterrupt) as caught:
            measure_accuracy(task(entry("base", Knowing({})), resume_folder=folder), interrupt)
        assert getattr(caught.value, "__notes__", []) == notes


@pytest.mark.parametrize("done", [0, 3, 9, 18])
def test_an_interrupted_pass_is_taken_up_where_it_ended(done: int, tmp_path: Path) -> None:
    wrong = {1: 4, 11: 4, 19: 4}
    whole = measure_accuracy(task(entry("base", Knowing(wrong)))).result
    with pytest.raises(RuntimeFailureError, match="the power went"):
        measure_accuracy(task(entry("base", Knowing(wrong, fails_after=done)), resume_folder=tmp_path))
    assert len(list(tmp_path.iterdir())) == (1 if done else 0)
    again = Knowing(wrong)
    result = measure_accuracy(task(entry("base", again), resume_folder=tmp_path)).result
    assert again.seen == list(range(done, 20))
    assert result.artifacts == whole.artifacts
    assert result.resumed_from == done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda model: task(entry("base", model), data=dataset(identity="others")),
        lambda model: task(entry("new", model)),
        lambda model: task(entry("base", model), data=dataset().limited(19)),
    ],
    ids=["dataset", "artifact", "limit"],
)
def test_answers_about_anything_else_are_not_taken_up(
    change: Callable[[Knowing], AccuracyTask], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeFailureError):
        measure_accuracy(task(entry("base", Knowing({}, fails_after=9)), resume_folder=tmp_path))
    model = Knowing({})
    other = change(model)
    result = measure_accuracy(
        AccuracyTask(
            candidates=other.candidates, dataset=other.dataset, loader=other.loader,
            resume_folder=tmp_path,
        )
    ).result  # fmt: skip
    assert result.resumed_from == 0
    assert model.seen[0] == 0


def test_a_folder_that_cannot_hold_a_resume_log_only_costs_the_resume_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = measure_accuracy(task(entry("base", Knowing({})), resume_folder=tmp_path / "gone")).result
    assert result.artifacts[0].top1.right == 20
    assert "cannot be taken up again" in caplog.text


@pytest.mark.untraced
def test_the_digits_have_their_published_accuracy_in_every_artifact(
    digits_bundle: Path, digits_data: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    data = tmp_path / "digits.npz"
    np.savez(data, images=digits_data["val_images"], labels=digits_data["val_labels"])
    bundle = tmp_path / "bundle"
    shutil.copytree(digits_bundle, bundle)
    options = AccuracyOptions(data=data, max_drop_points=0.0, batch=64)
    result = accuracy_bundle(bundle, options)
    assert [item.top1.right for item in result.artifacts] == [379] * 3  # 95.466 %
    assert [item.changed for item in result.comparisons] == [0, 0]
    assert result.published is None
    manifest = Bundle.open(bundle).manifest
    stored = load_json(AccuracyResult, (bundle / "accuracy.json").read_text())
    assert stored == result
    table = list(csv.DictReader((bundle / "accuracy.csv").read_text().splitlines()))
    expected = digits_data["val_logits"].argmax(axis=1)
    assert [int(row["ONNX Runtime fp32: class"]) for row in table] == expected.tolist()
    assert manifest.results["accuracy.csv"].parent_sha256 == manifest.results["accuracy"].sha256
    assert sorted(p.name for p in bundle.glob(".accuracy*")) == []


def test_a_bundle_far_below_what_was_published_is_warned_of(
    digits_bundle: Path,
    digits_data: dict[str, NDArray[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bundle = Path(shutil.copytree(digits_bundle, tmp_path / "bundle"))
    manifest = Bundle.open(bundle).manifest
    published = dataclasses.replace(
        VARIANTS["riformer-s12_in1k"],
        name="digits",
        architecture=manifest.model.architecture,
        image_size_px=64,
        file_name=f"digits-{manifest.source.sha256[:8]}.pth",
    )
    monkeypatch.setitem(VARIANTS, "digits", published)
    data = tmp_path / "digits.npz"
    labels = (digits_data["val_labels"][:40] + 1) % CLASSES  # another class order
    np.savez(data, images=digits_data["val_images"][:40], labels=labels)
    result = accuracy_bundle(bundle, AccuracyOptions(data=data, groups=(Group.ONNX,)))
    assert result.published is not None
    assert result.published.same_file
    assert (
        "far below the 76.90 % that was published of digits: other preprocessing or class order"
        in caplog.text
    )


def test_the_example_images_are_the_validation_set(
    repository: Path, digits_data: dict[str, NDArray[Any]]
) -> None:
    classes = ClassList(count=10, names=tuple("0123456789"))
    found = open_dataset(repository / "examples" / "digits", classes)
    by_number = {int(Path(sample.name).stem): number for number, sample in enumerate(found.samples)}
    assert sorted(by_number) == list(range(397))
    for number, place in by_number.items():
        assert found.samples[place].label == digits_data["val_labels"][number]
        np.testing.assert_array_equal(found.picture(place), digits_data["val_images"][number])
    calibration = sorted((repository / "examples" / "digits" / "calibration").iterdir())
    assert len(calibration) == 128


KILLED = """
import os, signal, sys
from pathlib import Path
from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle
from riformer_deploy.common.enums import Group
def count(done, total):
    if done >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
options = AccuracyOptions(data=Path(sys.argv[2]), batch=20, groups=(Group.ONNX,))
accuracy_bundle(Path(sys.argv[1]), options, count)
"""


def test_a_killed_process_loses_nothing(repository: Path, digits_bundle: Path, tmp_path: Path) -> None:
    bundle, data = tmp_path / "bundle", repository / "examples" / "digits"
    shutil.copytree(digits_bundle, bundle)
    before = (bundle / "bundle.json").read_bytes()
    killed = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", KILLED, bundle, data], check=False, env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL
    assert (bundle / "bundle.json").read_bytes() == before
    (resume_log,) = bundle.glob(".accuracy-*.jsonl")
    assert len(resume_log.read_text().splitlines()) == 1 + 5
    assert json.loads(resume_log.read_text().splitlines()[1])["count"] == 20
    result = accuracy_bundle(bundle, AccuracyOptions(data=data, batch=20, groups=(Group.ONNX,)))
    assert result.resumed_from == 100
    assert result.artifacts[0].top1.right == 379
    assert not resume_log.exists()
