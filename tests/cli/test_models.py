from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from riformer_deploy.api import models
from riformer_deploy.api.models import ModelTable, PublishedModel
from riformer_deploy.common.serialization import load_json
from riformer_deploy.model.variants import VARIANTS

Run = Callable[..., CompletedProcess[str]]


def test_json_is_the_model_table_and_nothing_else(cli: Run) -> None:
    ran = cli("models", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert load_json(ModelTable, ran.stdout).models[0].parameters == 11_915_176
    rows = json.loads(ran.stdout)["models"]
    assert [row["name"] for row in rows] == list(VARIANTS)
    assert all(set(row) == {field.name for field in dataclasses.fields(PublishedModel)} for row in rows)


def test_the_table_has_a_row_for_each_published_model_with_its_figures(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = [
        PublishedModel(
            name=variant.name,
            image_size_px=variant.image_size_px,
            resize_short_edge_px=variant.resize_short_edge_px,
            parameters=round(variant.published_params_m * 1e6),
            flops=round(variant.published_flops_g * 1e9),
            top1_percent=variant.top1_percent,
            top5_percent=variant.top5_percent,
            file_name=variant.file_name,
        )
        for variant in VARIANTS.values()
    ]
    monkeypatch.setattr(models, "published_models", lambda: ModelTable(models=tuple(rows_of)))
    ran = cli("models")
    assert (ran.returncode, ran.stderr) == (0, "Next: riformer-deploy export riformer-s12_in1k\n")
    rows = [line.strip("│").split("│") for line in ran.stdout.splitlines() if line.startswith("│")]
    shown = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert list(shown) == list(VARIANTS)
    for name, variant in VARIANTS.items():
        side, params, flops, top1, top5 = shown[name]
        assert int(side) == variant.image_size_px
        assert float(params) == pytest.approx(variant.published_params_m, abs=0.0051)
        assert float(flops) == pytest.approx(variant.published_flops_g, abs=0.0051)
        assert (float(top1), float(top5)) == (variant.top1_percent, variant.top5_percent)
