"""`score` with one and two models against one process: pictures a second, and what Ray adds to each.

The passes run in the environment of ``make scale``. What a picture takes is measured behind the first third
of the pictures, so that loading models, and starting Ray, are told apart from it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from _common import target, write_result

_ROOT = Path(__file__).resolve().parents[1]
_PICTURES = 3200
_ROUNDS = 3


def _make_pictures(folder: Path) -> Path:
    """Digits of the validation split, again and again."""
    sources = sorted((_ROOT / "examples" / "digits" / "val").glob("*/*.png"))
    for number in range(_PICTURES):
        shutil.copyfile(sources[number % len(sources)], folder / f"{number:06d}.png")
    return folder


def _per_picture_ms(marks: list[tuple[float, int]]) -> float:
    first_s, first = next(mark for mark in marks if mark[1] >= _PICTURES // 3)
    last_s, last = marks[-1]
    return 1000 * (last_s - first_s) / (last - first)


def _first_answer_s(marks: list[tuple[float, int]]) -> float:
    return next(seconds for seconds, done in marks if done)


def main() -> None:
    """Time the passes and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=_ROOT / ".venv-scale", help="from make scale")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    arguments = parser.parse_args()
    python, bundle = arguments.environment / "bin" / "python", arguments.environment / "digits"
    with tempfile.TemporaryDirectory() as name:
        program = (python, Path(__file__).with_name("_scoring.py"), bundle, _make_pictures(Path(name)))
        ran = subprocess.run(  # noqa: S603  # our own program
            [*program, str(arguments.rounds)], check=True, stdout=subprocess.PIPE, text=True
        )
    found = json.loads(ran.stdout.splitlines()[-1])
    per_picture_ms = {what: [_per_picture_ms(m) for m in marks] for what, marks in found["passes"].items()}
    first_s = {what: [_first_answer_s(m) for m in marks] for what, marks in found["passes"].items()}
    middle = {what: median(values) for what, values in per_picture_ms.items()}
    alone, one, two = middle["one process"], middle["1 worker"], middle["2 workers"]
    write_result(
        "score",
        f"Digits (64 px, fp32, ONNX Runtime), {_PICTURES} pictures, {arguments.rounds} rounds in turn: what "
        "a picture takes behind the first third; one process uses every core, a worker of Ray one",
        {
            "ray_start_s": found["ray_start_s"],
            "first_answer_s": {what: list(values) for what, values in first_s.items()},
            "per_picture_ms": {what: list(values) for what, values in per_picture_ms.items()},
            "pictures_per_s": {what: 1000 / value for what, value in middle.items()},
        },
        {
            "2 workers, pictures a second over one process": target(alone / two, 0.9, at_most=False),
            "2 workers, pictures a second over 1 worker": target(one / two, 1.6, at_most=False),
            "added to a picture by 2 workers over one process, ms": target(two - alone, 1.0),
        },
    )


if __name__ == "__main__":
    main()
