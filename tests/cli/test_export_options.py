"""Options of ``export`` that are refused: exit code 2, the reason, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--image-size", "nonsense"), "'nonsense' is not a size; say 224 or HEIGHTxWIDTH"),
        (("--image-size", "64x48x3"), "'64x48x3' is not a size"),
        (("--image-size", "64x"), "'64x' is not a size"),
        (("--image-size", "0"), "at least 3 px on each side, got (0, 0)"),
        (("--image-size", "64x2"), "at least 3 px on each side, got (64, 2)"),
        (("--image-size", "64", "--batch", "nonsense"), "'nonsense' is not a batch size; say dynamic or a"),
        (("--image-size", "64", "--batch", "0"), "the batch must be positive, got 0"),
        (("--image-size", "64", "--opset", "17"), "the opset must be from 18 to "),
        (("--image-size", "64", "--opset", "999"), "got 999"),
        (("--image-size", "64", "--opset", "new"), "Invalid value for '--opset'"),
        (("--image-size", "64", "--rtol", "-1"), "rtol must be a finite number of at least 0, got -1"),
        (("--image-size", "64", "--atol", "nan"), "atol must be a finite number of at least 0, got nan"),
        (("--image-size", "64", "--stage-tolerance", "inf"), "stage_relative_l2 must be a finite number"),
        (("--image-size", "64", "--rtol", "0", "--atol", "0"), "rtol and atol cannot both be 0"),
        (("--variant", "riformer-s99"), "There is no published RIFormer called 'riformer-s99'"),
        (("--out-indices", "0,2", "--image-size", "64"), "must hold 6, the last stage"),
        (("--out-indices", "0;6", "--image-size", "64"), "'0;6' is no list of positions"),
        (("--out-indices", "6,-1", "--image-size", "64"), "different positions from 0 to 6"),
        (("--out-indices", "6", "--output-form", "logits"), "exclude each other"),
        ((), "The image size of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_honoured_exits_2_with_the_reason_before_any_work(
    cli: Run, tmp_path: Path, tiny_checkpoint: Path, options: tuple[str, ...], said: str
) -> None:
    ran = cli("export", tiny_checkpoint, "-o", tmp_path / "bundle", *options)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "exporting" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_variant_is_answered_with_the_known_ones(cli: Run, tiny_checkpoint: Path) -> None:
    ran = cli("export", tiny_checkpoint, "--variant", "riformer_s12")
    assert ran.returncode == 2
    assert "known: riformer-s12_in1k, riformer-s24_in1k" in ran.stderr
    assert "riformer-deploy models" in ran.stderr


def test_every_bad_option_of_the_graph_is_told_at_once(cli: Run, tiny_checkpoint: Path) -> None:
    ran = cli("export", tiny_checkpoint, "--image-size", "1", "--batch", "-3", "--opset", "5")
    assert ran.returncode == 2
    for said in ("got (1, 1)", "got -3", "got 5"):
        assert said in ran.stderr
