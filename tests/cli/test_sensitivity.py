from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.serialization import load_json
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.sensitivity import SensitivityReport

Run = Callable[..., CompletedProcess[str]]

RANDOM = ("--calibration", "random")


def _row(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


@pytest.mark.untraced
def test_text_and_json_tell_the_same_ranking(cli: Run, tiny_bundle: Path, tiny_model: RIFormer) -> None:
    before = Bundle.open(tiny_bundle).manifest
    told = cli("sensitivity", tiny_bundle, *RANDOM, "--json")
    assert told.returncode == 0, told.stderr
    report = load_json(SensitivityReport, told.stdout)
    assert set(json.loads(told.stdout)) == {field.name for field in dataclasses.fields(SensitivityReport)}
    assert (report.images, report.calibration, report.random) == (64, "random", True)
    assert {item.layer for item in report.layers} == set(quantizable(fold(tiny_model)))
    costs = [item.cost.sqnr_db for item in report.layers]
    assert costs == sorted(costs, key=lambda cost: cost or 0)
    assert report.everything.sqnr_db is not None
    assert report.everything.sqnr_db < (costs[0] or 0)

    text = cli("sensitivity", tiny_bundle, *RANDOM)
    assert text.returncode == 0
    rows = [_row(line) for line in text.stdout.splitlines() if line.startswith("│")]
    assert rows == [
        [item.layer, f"{item.cost.sqnr_db:.2f}", f"{item.cost.drop_points:.2f}"] for item in report.layers
    ]
    assert "Cost of int8 on 64 images (random)" in text.stdout
    everything = (
        f"Every layer: {report.everything.sqnr_db:.2f} dB, {report.everything.drop_points:.2f} % changed"
    )
    assert text.stdout.endswith(f"{everything}\n")
    for ran in (told, text):
        assert "note: the calibration images are random: accuracy on real images is not known" in ran.stderr
    assert Bundle.open(tiny_bundle).manifest == before


def test_fp8_ranks_the_layers_that_it_quantises(cli: Run, tiny_bundle: Path, tiny_model: RIFormer) -> None:
    told = cli("sensitivity", tiny_bundle, *RANDOM, "--precision", "fp8", "--json")
    assert told.returncode == 0, told.stderr
    report = load_json(SensitivityReport, told.stdout)
    assert report.precision is Precision.FP8
    assert {item.layer for item in report.layers} == set(quantizable(fold(tiny_model), Precision.FP8))
    text = cli("sensitivity", tiny_bundle, *RANDOM, "--precision", "fp8", "--top", "1")
    assert "Cost of fp8 on 64 images (random)" in text.stdout


@pytest.mark.slow
def test_only_the_costliest_are_shown_and_the_options_change_the_costs(
    cli: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle)  # the bundle in the current folder is the default
    shown = {}
    for options in (
        (),
        ("--method", "entropy"),
        ("--no-equalize",),
        ("--int8-base", "fp16"),
    ):
        ran = cli("sensitivity", *RANDOM, "--top", "2", *options)
        assert ran.returncode == 0, ran.stderr
        assert len([line for line in ran.stdout.splitlines() if line.startswith("│")]) == 2
        shown[options] = re.sub(r"\s+", " ", ran.stdout.splitlines()[-1])
    assert len(set(shown.values())) == len(shown), shown


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "int8 needs calibration images"),
        (("--calibration", "absent"), 41, "There is no calibration data at absent"),
        ((*RANDOM, "--method", "guess"), 2, "'guess' is not one of 'max', 'mse', 'percentile', 'entropy'"),
        ((*RANDOM, "--int8-base", "bf16"), 2, "'bf16' is not one of 'fp32', 'fp16'"),
        ((*RANDOM, "--precision", "fp16"), 2, "'fp16' is not one of 'int8', 'fp8'"),
        ((*RANDOM, "--precision", "fp8", "--method", "entropy"), 2, "entropy is for int8"),
        ((*RANDOM, "--precision", "fp8", "--no-equalize"), 2, "quantised to int8 alone"),
        (("--precision", "fp8"), 2, "fp8 needs calibration images"),
        ((*RANDOM, "--top", "few"), 2, "Invalid value for '--top'"),
        ((*RANDOM, "--top", "0"), 2, "Invalid value for '--top'"),
        ((*RANDOM, "--top", "-1"), 2, "Invalid value for '--top'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_honoured_is_refused(
    cli: Run, tiny_bundle: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = cli("sensitivity", tiny_bundle, *options)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in " ".join(ran.stderr.split())


def test_what_is_no_bundle_is_refused_by_name(cli: Run, tmp_path: Path) -> None:
    ran = cli("sensitivity", tmp_path, *RANDOM)
    assert (ran.returncode, ran.stdout) == (30, "")
    assert str(tmp_path) in ran.stderr


def test_a_bundle_whose_weights_were_changed_is_refused(cli: Run, tiny_bundle_copy: Path) -> None:
    path = tiny_bundle_copy / "training.pth"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    ran = cli("sensitivity", tiny_bundle_copy, *RANDOM)
    assert (ran.returncode, ran.stdout) == (31, "")
    assert "training.pth" in ran.stderr
