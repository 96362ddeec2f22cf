"""What `score.py` runs in the environment of ``make scale``, which has Ray and no PyTorch; prints JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from riformer_deploy.api.predict import Classifier
from riformer_deploy.api.score import RayOptions, ScoreOptions, find_pictures, score_pictures

# Internals: one Ray for all the passes, so that starting it is told apart.
from riformer_deploy.serving.ray_session import ray_session

Marks = list[tuple[float, int]]
"""Seconds since the beginning, and pictures that were answered by then."""


def _alone(bundle: Path, pictures: list[Path]) -> Marks:
    """One process, on all the cores."""
    marks: Marks = []
    begun_s = time.monotonic()
    with Classifier.open(bundle) as classifier:
        for number, _ in enumerate(classifier.stream(find_pictures(pictures)), 1):
            marks.append((time.monotonic() - begun_s, number))
    return marks


def _with_ray(bundle: Path, pictures: list[Path], actors: int, folder: Path) -> Marks:
    marks: Marks = []
    begun_s = time.monotonic()

    def count(done: int, _total: int) -> None:
        marks.append((time.monotonic() - begun_s, done))

    options = ScoreOptions(output=folder / "scores.parquet", force=True, ray=RayOptions(actors=actors))
    score_pictures(bundle, find_pictures(pictures), options, count)
    return marks


def main(bundle: Path, pictures: Path, rounds: int) -> None:
    """Every pass in turn, ``rounds`` times."""
    passes: dict[str, list[Marks]] = {"one process": [], "1 worker": [], "2 workers": []}
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ray_session(RayOptions()):
        started_s = time.monotonic() - begun_s
        for _ in range(rounds):
            passes["one process"].append(_alone(bundle, [pictures]))
            passes["1 worker"].append(_with_ray(bundle, [pictures], 1, Path(name)))
            passes["2 workers"].append(_with_ray(bundle, [pictures], 2, Path(name)))
    print(json.dumps({"ray_start_s": started_s, "passes": passes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
