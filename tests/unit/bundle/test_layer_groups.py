from __future__ import annotations

import pytest

from riformer_deploy.bundle.layer_groups import group_of, selected, unmatched
from riformer_deploy.common.enums import LayerGroup
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold

STAGE = "backbone.network.4"
BLOCK = f"{STAGE}.1"


@pytest.fixture
def layers(tiny_model: RIFormer) -> tuple[str, ...]:
    return quantizable(fold(tiny_model))


def test_every_layer_of_a_model_is_in_its_group(layers: tuple[str, ...]) -> None:
    counts = {group: sum(group_of(name) is group for name in layers) for group in LayerGroup}
    assert group_of("backbone.network.3.proj") is LayerGroup.DOWNSAMPLING
    assert (counts[LayerGroup.STEM], counts[LayerGroup.DOWNSAMPLING], counts[LayerGroup.HEAD]) == (1, 3, 1)
    assert counts[LayerGroup.FC1] == counts[LayerGroup.FC2] == (len(layers) - 5) / 2


def test_a_choice_is_a_layer_a_block_a_stage_or_a_group(layers: tuple[str, ...]) -> None:
    assert selected(("head.fc", "stem"), layers) == ("backbone.patch_embed.proj", "head.fc")
    assert selected((BLOCK,), layers) == (f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc2")
    assert selected((STAGE,), layers) == tuple(name for name in layers if name.startswith(f"{STAGE}."))
    assert selected(("fc1", "fc2", "stem", "downsampling", "head"), layers) == layers


def test_a_name_that_only_begins_alike_is_not_chosen() -> None:
    names = ("backbone.network.4.1", "backbone.network.4.10", "backbone.network.40.0")
    assert selected(("backbone.network.4.1",), names) == names[:1]
    assert selected(("backbone.network.4",), names) == names[:2]


def test_what_selects_nothing_is_told(layers: tuple[str, ...]) -> None:
    assert unmatched(("tail", "head", "backbone.network.4.9", BLOCK), layers) == (
        "backbone.network.4.9",
        "tail",
    )
