from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.evaluation.latency_sessions import (
    read_session,
    series_of,
    session_kinds,
    standing_sessions,
    store_session,
)
from riformer_deploy.evaluation.results import LatencyResult
from tests.sessions import MACHINE, series, session


@pytest.fixture
def shas(tiny_bundle: Path) -> tuple[str, str]:
    """sha256 of the bundle's graph and of its deploy weights."""
    manifest = Bundle.open(tiny_bundle).manifest
    return manifest.onnx[0].file.sha256, manifest.weights[1].file.sha256


def _store(directory: Path, *sessions: LatencyResult) -> list[str]:
    """Stores them one after the other and gives what was told of the last."""
    told: list[str] = []
    for item in sessions:
        told.clear()
        store_session(Bundle.open(directory), item, told.append)
    return told


def _stored(directory: Path) -> dict[str, LatencyResult]:
    bundle = Bundle.open(directory)
    results = bundle.manifest.results
    return {kind: read_session(bundle, results[kind]) for kind in session_kinds(bundle.manifest)}


def test_a_narrower_session_leaves_what_it_did_not_measure(
    tiny_bundle_copy: Path, shas: tuple[str, str]
) -> None:
    onnx, torch = shas
    wide = session(series("onnx", 1, onnx), series("onnx", 8, onnx), series("torch", 1, torch))
    narrow = session(series("onnx", 1, onnx), created="2026-01-02T00:00:00+00:00")
    assert _store(tiny_bundle_copy, wide) == []
    (told,) = _store(tiny_bundle_copy, narrow)
    assert (
        told == f"latency-1.json keeps the session of {wide.created_utc}, for onnx, batch 8; torch, batch 1"
    )
    assert _stored(tiny_bundle_copy) == {"latency": narrow, "latency-1": wide}
    assert "parity" in Bundle.open(tiny_bundle_copy).manifest.results


def test_a_session_goes_once_later_ones_hold_all_of_it(tiny_bundle_copy: Path, shas: tuple[str, str]) -> None:
    onnx, torch = shas
    first = session(series("onnx", 1, onnx), series("torch", 1, torch))
    second = session(series("onnx", 1, onnx))
    third = session(series("torch", 1, torch), created="2026-01-03T00:00:00+00:00")
    told = _store(tiny_bundle_copy, first, second, third)
    assert told == [
        f"latency-2.json keeps the session of {second.created_utc}, for onnx, batch 1",
        f"latency-1.json of {first.created_utc} is replaced: all of it was measured again",
    ]
    assert _stored(tiny_bundle_copy) == {"latency": third, "latency-2": second}
    assert not (tiny_bundle_copy / "latency-1.json").exists()


def test_other_machines_and_threads_are_other_series_and_newer_libraries_are_not(
    shas: tuple[str, str],
) -> None:
    base = session(series("onnx", 1, shas[0]))

    def on(**changes: object) -> LatencyResult:
        return dataclasses.replace(base, machine=dataclasses.replace(MACHINE, **changes))  # type: ignore[arg-type]

    for other in (on(cpu="another"), on(gpus=("GPU",)), dataclasses.replace(base, threads=2)):
        assert not series_of(base) & series_of(other)
    assert series_of(base) == series_of(on(libraries={"onnxruntime": "9"}))


def test_series_of_files_that_are_gone_and_damaged_sessions_keep_nothing(
    tiny_bundle_copy: Path, shas: tuple[str, str]
) -> None:
    newest = session(series("onnx", 1, shas[0]))
    (told,) = _store(tiny_bundle_copy, session(series("engine", 1, "0" * 64)), newest)
    assert "latency.json" in told
    assert "is replaced" in told
    (tiny_bundle_copy / "latency.json").write_text("damaged")
    (told,) = _store(tiny_bundle_copy, newest)
    assert told.startswith("dropped from the bundle: latency.json: ")
    assert _stored(tiny_bundle_copy) == {"latency": newest}


def test_what_stands_is_each_series_once_of_files_that_are_there_under_the_newest_conditions(
    tiny_bundle_copy: Path, shas: tuple[str, str]
) -> None:
    onnx, torch = shas
    elsewhere = session(series("onnx", 2, onnx), threads=2)
    wide = session(series("onnx", 1, onnx), series("torch", 1, torch), series("engine", 1, "built before"))
    narrow = session(series("onnx", 1, onnx), created="2026-01-02T00:00:00+00:00")
    _store(tiny_bundle_copy, elsewhere, wide, narrow)
    standing, notes = standing_sessions(Bundle.open(tiny_bundle_copy))
    assert standing == (narrow, dataclasses.replace(wide, samples=(series("torch", 1, torch),)))
    assert notes == (
        "latency-2.json: engine: measured of a file that is replaced",
        "latency-1.json: measured on another machine or with other threads than the newest",
    )
