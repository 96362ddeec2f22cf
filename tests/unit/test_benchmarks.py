"""The page of figures shows what the result files hold; floors are what they say."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.common.enums import Precision, Role, RuntimeKind
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import (
    RESULT_SCHEMA,
    InputImages,
    LatencyResult,
    LatencySamples,
    Timing,
)
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import empty_model
from riformer_deploy.model.variants import VARIANTS
from riformer_deploy.system.machine import describe_machine
from tests.candidates import labelled


@pytest.fixture
def roofline(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of floors, imported as the scripts beside it do."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import _roofline  # noqa: PLC0415  # found only now

    module: ModuleType = _roofline
    return module


@dataclass(frozen=True, kw_only=True)
class _Series:
    """One series of kernels: what runs, in which role, and its median."""

    name: str
    role: Role
    precision: Precision
    median_ms: float
    bundle: str | None = None
    runtime: RuntimeKind = RuntimeKind.PYTORCH
    warning: str | None = None

    @property
    def config(self) -> CandidateConfig:
        return labelled(self.name, self.runtime, self.precision)


def _targets(
    monkeypatch: pytest.MonkeyPatch, repository: Path, *measured: tuple[str, tuple[_Series, ...]]
) -> dict[str, Any]:
    """The suite's targets at batch 1 of measurements: each a variant and its series."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from _suite import CandidateFacts, Suite, Timed  # noqa: PLC0415  # found only now
    from _targets import targets_of  # noqa: PLC0415

    suite = Suite(deadline=0, out=repository / "nowhere.json")
    for variant, series in measured:
        samples = tuple(
            LatencySamples(
                config=item.config, batch=1, timing=Timing.COMPUTE, samples_ms=(item.median_ms,) * 6,
                preparation_ms=1.0, artifact_sha256="", warning=item.warning, role=item.role,
                summary=summarize(np.array((item.median_ms,) * 6), 1),
            )
            for item in series
        )  # fmt: skip
        facts = tuple(CandidateFacts(config=item.config, bundle=item.bundle) for item in series)
        result = LatencyResult(
            schema=RESULT_SCHEMA, kind="latency", created_utc="", machine=describe_machine(),
            threads=1, rounds=6, repeats=1, samples=samples, skipped=(), process_peak_rss_bytes=1,
            inputs=InputImages(description="", image_size_px=(8, 8), batches=(1,), seed=0),
        )  # fmt: skip
        timed = Timed(what="", variant=variant, precision=Precision.FP16, candidates=facts, result=result)
        suite.latency.append(timed)
    found: dict[str, Any] = targets_of(suite, (1,))
    return {name: value for name, value in found.items() if name.endswith("the fastest engine")}


ENGINE = _Series(
    name="engine",
    role=Role.CANDIDATE,
    precision=Precision.FP16,
    median_ms=1.0,
    bundle="b",
    runtime=RuntimeKind.TENSORRT,
)
QUICK = _Series(name="quick", role=Role.BASELINE, precision=Precision.FP16, median_ms=2.0)


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ((), 2.0),
        ((_Series(name="max-autotune", role=Role.BASELINE, precision=Precision.FP16, median_ms=1.2),), 1.2),
        ((_Series(name="bfloat16", role=Role.BASELINE, precision=Precision.BF16, median_ms=1.1),), 1.1),
        ((_Series(name="float32", role=Role.BASELINE, precision=Precision.FP32, median_ms=0.1),), 2.0),
    ],
)
def test_the_target_is_over_the_strongest_baseline_of_every_measurement(
    monkeypatch: pytest.MonkeyPatch, repository: Path, later: tuple[_Series, ...], expected: float
) -> None:
    (value,) = _targets(
        monkeypatch, repository, ("s12", (ENGINE, QUICK)), ("s12", later or (QUICK,))
    ).values()
    assert value == {"value": expected, "limit": 1.5, "sense": "at least", "met": expected >= 1.5}


def test_other_variants_and_unreliable_series_make_no_target(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    (value,) = _targets(monkeypatch, repository, ("s12", (QUICK,)), ("m36", (ENGINE,))).values()
    assert value == "not measured"
    unhidden = dataclasses.replace(ENGINE, warning="the host could not launch fast enough")
    (value,) = _targets(monkeypatch, repository, ("s12", (unhidden, QUICK))).values()
    assert value == "not reliable: the host could not launch fast enough"


@pytest.mark.parametrize("name", ["riformer-s12_in1k", "riformer-m36_in1k-384"])
def test_floors_count_every_multiply_add_of_the_network(roofline: ModuleType, name: str) -> None:
    variant = VARIANTS[name]
    model = empty_model(variant.architecture, Form.FOLDED)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.empty(1, 3, variant.image_size_px, variant.image_size_px, device="meta"))
    layers = roofline.layers_of(
        variant.architecture, variant.image_size_px, 3, roofline.STORED_AS[Precision.FP16]
    )
    assert sum(layer.flops for layer in layers) == 3 * counter.get_total_flops()


def test_floors_move_what_the_design_says_of_s12(roofline: ModuleType) -> None:
    stored, architecture = roofline.STORED_AS[Precision.FP16], VARIANTS["riformer-s12_in1k"].architecture
    one, two = (roofline.layers_of(architecture, 224, batch, stored) for batch in (1, 2))
    products = [(a, b) for a, b in zip(one, two, strict=True) if a.in_mlp]
    # an image's hidden maps, written and read, and its stream, read twice and written; the weights cancel
    assert sum(b.moved_bytes - a.moved_bytes for a, b in products) / 1e6 == pytest.approx(22.5, abs=0.2)
    assert sum(b.ideal_bytes - a.ideal_bytes for a, b in products) / 1e6 == pytest.approx(4.1, abs=0.1)


def test_a_floor_is_the_longer_of_moving_and_computing_layer_by_layer(roofline: ModuleType) -> None:
    need = roofline.LayerNeed
    layers = [
        need(name="a", flops=1.0, moved_bytes=100.0, ideal_bytes=40.0, kernel=0),
        need(name="b", flops=300.0, moved_bytes=100.0, ideal_bytes=0.0, kernel=0, in_mlp=True),
    ]
    ceiling = roofline.Ceiling(
        copy_bytes_per_s=100.0,
        cached_copy_bytes_per_s=1000.0,
        matrix_flops_per_s={"float16": 10.0, "float8_e4m3fn": 100.0},
    )
    floor = roofline.floor_of(layers, ceiling, roofline.STORED_AS[Precision.FP8])
    assert floor.layers_ms == pytest.approx(1000 * (1.0 + 3.0))  # moving a, computing b
    assert floor.cached_layers_ms == pytest.approx(1000 * (0.1 + 3.0))
    assert floor.ideal_ms == pytest.approx(1000 * 3.1)  # computing both takes longer than moving 40 bytes
    assert floor.computing_ms == pytest.approx(1000 * 3.1)
    int8 = roofline.STORED_AS[Precision.INT8]
    assert roofline.floor_of(layers, ceiling, int8) is None  # there is no rate for it
    ceiling.matrix_flops_per_s["int8"] = 100.0
    floor = roofline.floor_of(layers, ceiling, int8)
    assert floor.computing_ms == pytest.approx(1000 * 3.01)  # int8 quantises layers outside the MLPs, too


@pytest.mark.untraced
def test_the_page_of_figures_is_up_to_date(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import render  # noqa: PLC0415  # found only now

    monkeypatch.setattr(sys, "argv", ["render.py", "--check"])
    assert render.main() == 0, "run python benchmarks/render.py"


def test_every_target_that_is_missed_is_shown_as_missed(repository: Path) -> None:
    page = (repository / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (repository / "benchmarks" / "results").glob("*.json"):
        for name, target in json.loads(path.read_text(encoding="utf-8"))["targets"].items():
            if isinstance(target, dict):
                row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
                assert row.endswith("| yes |" if target["met"] else "| NO |")
