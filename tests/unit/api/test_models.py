from __future__ import annotations

import pytest

from riformer_deploy.api.models import ModelTable, list_models, published_models
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.model.variants import VARIANTS


@pytest.fixture(scope="module")
def table() -> ModelTable:
    return published_models()


def test_the_table_has_the_ten_published_models_in_order(table: ModelTable) -> None:
    assert [row.name for row in table.models] == list(VARIANTS)
    assert len(table.models) == 10
    assert load_json(ModelTable, dump_json(table)) == table


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_computed_agrees_with_what_was_published(table: ModelTable, name: str) -> None:
    (row,) = [row for row in table.models if row.name == name]
    variant = VARIANTS[name]
    assert row.parameters / 1e6 == pytest.approx(variant.published_params_m, abs=0.00051)
    # the published figures are cut after three digits, not rounded
    assert row.flops / 1e9 == pytest.approx(variant.published_flops_g, rel=5e-4)
    assert (row.image_size_px, row.resize_short_edge_px) == (
        variant.image_size_px,
        variant.resize_short_edge_px,
    )
    assert (row.top1_percent, row.top5_percent) == (variant.top1_percent, variant.top5_percent)
    assert row.file_name == variant.file_name


def test_names_are_listed_by_pattern_as_mmpretrain_lists_them() -> None:
    assert list_models() == list_models("riformer*") == sorted(VARIANTS)
    assert list_models("riformer-s12") == ["riformer-s12_in1k", "riformer-s12_in1k-384"]
    assert list_models("*m48*", exclude_patterns=["*-384"]) == ["riformer-m48_in1k"]
    assert list_models("resnet*") == []
