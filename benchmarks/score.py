"""`score` with one and two models against `predict` in one process: pictures a second, and what Ray adds.

The commands are those of the environment of ``make scale``. Each runs on two numbers of pictures, so that
what a picture takes (the slope) is told apart from what starting takes (the rest).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from _common import interleaved_s, target, write_result

from riformer_deploy.common.serialization import JsonValue

_ROOT = Path(__file__).resolve().parents[1]
_FEW, _MANY = 640, 2560
_ROUNDS = 3
_ONE_PROCESS = "predict, one process"


def _make_pictures(folder: Path, count: int) -> Path:
    """Digits of the validation split, again and again."""
    sources = sorted((_ROOT / "examples" / "digits" / "val").glob("*/*.png"))
    folder.mkdir()
    for number in range(count):
        shutil.copyfile(sources[number % len(sources)], folder / f"{number:06d}.png")
    return folder


def _commands(command: Path, bundle: Path, pictures: Path, output: Path) -> dict[str, Sequence[str]]:
    score = (str(command), "score", str(pictures), str(bundle), "-o", str(output), "--force", "--json")
    return {
        _ONE_PROCESS: (str(command), "predict", str(pictures), str(bundle), "--json"),
        "score, 1 worker": (*score, "--actors", "1"),
        "score, 2 workers": (*score, "--actors", "2"),
    }


def main() -> None:
    """Time the commands on few and on many pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=_ROOT / ".venv-scale", help="from make scale")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    arguments = parser.parse_args()
    command = arguments.environment / "bin" / "riformer-deploy"
    bundle = arguments.environment / "digits"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples: dict[str, dict[int, list[float]]] = {}
        for count in (_FEW, _MANY):
            pictures = _make_pictures(folder / str(count), count)
            commands = _commands(command, bundle, pictures, folder / "scores.parquet")
            for what, seconds in interleaved_s(commands, arguments.rounds).items():
                samples.setdefault(what, {})[count] = seconds
    per_picture_ms, start_s = {}, {}
    for what, by_count in samples.items():
        few_s, many_s = median(by_count[_FEW]), median(by_count[_MANY])
        per_picture_ms[what] = 1000 * (many_s - few_s) / (_MANY - _FEW)
        start_s[what] = few_s - per_picture_ms[what] * _FEW / 1000
    alone = per_picture_ms[_ONE_PROCESS]
    figures: dict[str, JsonValue] = {
        "samples_s": {what: {str(n): list(v) for n, v in by.items()} for what, by in samples.items()},
        "per_picture_ms": dict(per_picture_ms),
        "start_s": dict(start_s),
        "pictures_per_s": {what: 1000 / value for what, value in per_picture_ms.items()},
    }
    one, two = per_picture_ms["score, 1 worker"], per_picture_ms["score, 2 workers"]
    write_result(
        "score",
        f"Digits (64 px, fp32, ONNX Runtime): what a picture takes, from {_FEW} and {_MANY} pictures, "
        f"medians of {arguments.rounds} interleaved runs; one process uses every core, a worker one",
        figures,
        {
            "score with 2 workers, pictures a second over one process": target(
                alone / two, 0.9, at_most=False
            ),
            "score with 2 workers, pictures a second over 1 worker": target(one / two, 1.6, at_most=False),
            "added to a picture with 2 workers, ms": target(two - alone, 1.0),
            "starting score with 2 workers, s over predict": target(
                start_s["score, 2 workers"] - start_s[_ONE_PROCESS], 30.0
            ),
        },
    )


if __name__ == "__main__":
    main()
