"""The page of figures shows what the result files hold; floors are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from riformer_deploy.architecture import Form
from riformer_deploy.choices import Precision
from riformer_deploy.model import empty_model
from riformer_deploy.variants import VARIANTS


@pytest.fixture
def roofline(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of floors, imported as the scripts beside it do."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import _roofline  # noqa: PLC0415  # found only now

    module: ModuleType = _roofline
    return module


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
        matrix_flops_per_s={"float16": 10.0, "int8": 100.0},
    )
    floor = roofline.floor_of(layers, ceiling, roofline.STORED_AS[Precision.INT8])
    assert floor.layers_ms == pytest.approx(1000 * (1.0 + 3.0))  # moving a, computing b
    assert floor.cached_layers_ms == pytest.approx(1000 * (0.1 + 3.0))
    assert floor.ideal_ms == pytest.approx(1000 * 3.1)  # computing both takes longer than moving 40 bytes
    assert floor.computing_ms == pytest.approx(1000 * 3.1)
    assert roofline.floor_of(layers, ceiling, roofline.STORED_AS[Precision.FP8]) is None


def test_the_page_of_figures_is_up_to_date(repository: Path) -> None:
    script = repository / "benchmarks" / "render.py"
    ran = subprocess.run([sys.executable, script, "--check"], check=False)  # noqa: S603  # our own script
    assert ran.returncode == 0, "run python benchmarks/render.py"


def test_every_target_that_is_missed_is_shown_as_missed(repository: Path) -> None:
    page = (repository / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (repository / "benchmarks" / "results").glob("*.json"):
        for name, target in json.loads(path.read_text(encoding="utf-8"))["targets"].items():
            if isinstance(target, dict):
                row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
                assert row.endswith("| yes |" if target["met"] else "| NO |")
