from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.common.serialization import load_json
from riformer_deploy.quantization.tune_result import TuneResult

Run = Callable[..., CompletedProcess[str]]


def test_text_and_json_tell_the_same_answer_and_the_second_is_the_stored_one(
    cli: Run, tiny_bundle_copy: Path
) -> None:
    # so little time that float32 alone is tried, and nothing is exported
    asked = ("tune", tiny_bundle_copy, "--calibration", "random", "--max-seconds", "0.01", "--threads", "1")
    text = cli(*asked)
    assert text.returncode == 0, text.stderr
    told = cli(*asked, "--json")
    assert told.returncode == 0, told.stderr
    assert "note: the bundle holds this answer, of " in told.stderr
    assert "the bundle holds this answer" not in text.stderr
    result = load_json(TuneResult, told.stdout)
    assert told.stdout.split() == (tiny_bundle_copy / "tune-onnx.json").read_text().split()
    assert (len(result.trace.trials), result.trace.complete, result.trace.confirmed) == (1, False, False)
    assert "fp32, the default form" in text.stdout
    assert "the time was over before the search was: 1 trials" in text.stdout
    assert text.stdout.splitlines()[-1].startswith(
        "Answer: model.fp32.onnx (fp32, the default form), since no tuned form was confirmed"
    )
    for ran in (text, told):
        assert "the calibration images are random" in ran.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "tune needs calibration images"),
        (
            ("--calibration", "random", "--with", "torch"),
            2,
            "'torch' is not one of 'onnx', 'openvino', 'engine'",
        ),
        (("--calibration", "random", "--batch", "few"), 2, "'few' is not an integer"),
        (("--calibration", "random", "--max-drop", "101"), 2, "--max-drop is from 0 to 100"),
        (("--calibration", "random", "--max-seconds", "-1"), 2, "max-seconds must be a positive number"),
        (("--calibration", "random", "--data", "absent"), 61, "There is no dataset at absent"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_honoured_is_refused(
    cli: Run, tiny_bundle: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = cli("tune", tiny_bundle, *options)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in " ".join(ran.stderr.split())
