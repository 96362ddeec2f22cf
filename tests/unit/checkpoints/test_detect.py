from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.detect import recognise_architecture, recognise_form
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.errors import CheckpointError, CheckpointKeysError, NotRIFormerError
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fuse
from riformer_deploy.model.variants import VARIANTS

Write = Callable[..., Path]
State = dict[str, Tensor]
FILE = Path("some.pth")


@pytest.mark.parametrize("form", [Form.TRAINING, Form.DEPLOY])
@pytest.mark.parametrize("name", VARIANTS)
def test_published_models_are_recognised_from_shapes(name: str, form: Form) -> None:
    architecture = VARIANTS[name].architecture
    state = {key: torch.empty(shape, device="meta") for key, shape in architecture.shapes(form).items()}
    assert recognise_form(FILE, state) is form
    assert recognise_architecture(FILE, state) == architecture


def test_odd_mlp_widths_and_heads_are_recognised(tiny_architecture: Architecture) -> None:
    odd = replace(tiny_architecture, hidden_dims=(5, 77, 3, 1), num_classes=1)
    state = {key: torch.empty(shape, device="meta") for key, shape in odd.shapes(Form.TRAINING).items()}
    assert recognise_architecture(FILE, state) == odd


def test_one_wrong_shape_is_outvoted_and_then_reported(write_checkpoint: Write, tiny_state: State) -> None:
    tiny_state["backbone.network.2.0.norm1.weight"] = torch.ones(99)
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint())
    assert caught.value.details == ("shape: backbone.network.2.0.norm1.weight is (99,), expected (16,)",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_missing_unexpected_and_misshaped_keys_are_listed_together(
    write_checkpoint: Write, tiny_state: State, *, legacy: bool
) -> None:
    for key in ("backbone.norm6.weight", "backbone.network.1.proj.bias", "head.fc.bias"):
        del tiny_state[key]
    tiny_state["backbone.network.4.1.layer_scale_1"] = torch.ones(24, 1)
    tiny_state["backbone.norm7.weight"] = tiny_state["neck.x"] = torch.ones(2)
    content: dict[str, object] = {**tiny_state, "backbone.norm6.bias": [1, 2]}
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(content, legacy=legacy))
    assert sorted(caught.value.details) == [
        "missing: backbone.network.1.proj.bias (16,)",
        "missing: backbone.norm6.weight (32,)",
        "missing: head.fc.bias (7,)",
        "not a tensor: backbone.norm6.bias is a list",
        "shape: backbone.network.4.1.layer_scale_1 is (24, 1), expected (24,)",
        "unexpected: backbone.norm7.weight",
        "unexpected: neck.x",
    ]


def test_a_block_that_is_missing_in_the_middle_is_missed_key_by_key(
    write_checkpoint: Write, tiny_state: State
) -> None:
    kept = {key: value for key, value in tiny_state.items() if not key.startswith("backbone.network.4.0.")}
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(kept))
    assert len(caught.value.details) == len(tiny_state) - len(kept)
    assert all("missing: backbone.network.4.0." in detail for detail in caught.value.details)


def test_keys_with_a_prefix_on_some_of_them_only_are_refused(
    write_checkpoint: Write, tiny_state: State
) -> None:
    mixed = {f"module.{key}" if "head" in key else key: value for key, value in tiny_state.items()}
    with pytest.raises(CheckpointKeysError):
        load_checkpoint(write_checkpoint(mixed))


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        ("backbone.network.6.", "no block of stage 4 (backbone.network.6.*)"),
        ("head.", "no classifier (head.fc.weight, head.fc.bias)"),
        ("backbone.network.2.0.mlp.fc1.", "no mlp.fc1 in stage 2, so its width is unknown"),
    ],
    ids=["stage", "head", "mlp"],
)
def test_a_part_that_is_missing_altogether_is_named(
    write_checkpoint: Write, tiny_state: State, dropped: str, said: str
) -> None:
    kept = {key: value for key, value in tiny_state.items() if not key.startswith(dropped)}
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(kept))
    assert caught.value.details == (said,)


def test_several_missing_parts_are_named_at_once(write_checkpoint: Write, tiny_state: State) -> None:
    kept = {
        key: value
        for key, value in tiny_state.items()
        if not key.startswith(("backbone.network.2.", "head."))
    }
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(kept))
    assert len(caught.value.details) == 2


def test_a_stage_of_which_only_the_mlp_is_left_is_a_keys_error(
    write_checkpoint: Write, tiny_state: State
) -> None:
    kept = {
        key: value
        for key, value in tiny_state.items()
        if not key.startswith("backbone.network.6.") or ".mlp.fc1." in key
    }
    with pytest.raises(CheckpointKeysError, match=r"stage 4|backbone\.network\.6"):
        load_checkpoint(write_checkpoint(kept))


@pytest.mark.parametrize("part", ["head.fc.", "backbone.network.0.0."])
def test_tensors_without_values_are_a_checkpoint_error(
    write_checkpoint: Write, tiny_state: State, part: str
) -> None:
    for key in tiny_state:
        if key.startswith(part):
            tiny_state[key] = tiny_state[key][:0]
    with pytest.raises(CheckpointError):
        load_checkpoint(write_checkpoint())


def test_neighbouring_stages_of_one_width_are_refused(write_checkpoint: Write, tiny_state: State) -> None:
    for key, value in tiny_state.items():
        if key.startswith("backbone.network.2.0.") and ".fc1." not in key:
            tiny_state[key] = value[:8]
    with pytest.raises(CheckpointKeysError, match="stage 1 and stage 2 have the same width 8"):
        load_checkpoint(write_checkpoint())


@pytest.mark.parametrize("blocks", [("4.1",), ("0.0", "6.0")], ids=["one block", "several"])
def test_a_mixture_of_both_forms_is_refused_and_the_blocks_named(
    write_checkpoint: Write, tiny_state: State, tiny_model: RIFormer, blocks: tuple[str, ...]
) -> None:
    mixed = dict(fuse(tiny_model).state_dict())
    for block in blocks:
        name = f"backbone.network.{block}."
        mixed = {key: value for key, value in mixed.items() if not key.startswith(name)}
        mixed |= {key: value for key, value in tiny_state.items() if key.startswith(name)}
    with pytest.raises(CheckpointKeysError, match="mixes the training and the deploy form") as caught:
        load_checkpoint(write_checkpoint(mixed))
    training, deploy = caught.value.details
    named = set(training.split(": ")[1].split(", "))
    assert named == {f"backbone.network.{block}" for block in blocks}
    assert not named & set(deploy.split(": ")[1].split(", "))


def test_both_parameterisations_of_one_block_are_a_mixture(
    write_checkpoint: Write, tiny_state: State
) -> None:
    tiny_state["backbone.network.0.0.norm_reparam.weight"] = torch.ones(8)
    with pytest.raises(CheckpointKeysError, match="mixes"):
        load_checkpoint(write_checkpoint())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_poolformer_is_not_a_riformer(write_checkpoint: Write, tiny_state: State, *, legacy: bool) -> None:
    pool = {key: value for key, value in tiny_state.items() if "token_mixer" not in key}
    with pytest.raises(NotRIFormerError, match="not a RIFormer"):
        load_checkpoint(write_checkpoint(pool, legacy=legacy))


@pytest.mark.parametrize(
    "state",
    [
        {"conv1.weight": torch.ones(64, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(64, 64, 1, 1)},
        {"backbone.conv1.weight": torch.ones(64, 3, 7, 7), "head.fc.weight": torch.ones(10, 64)},
        {},
        {"epoch": 3},
        {7: torch.ones(2)},
    ],
    ids=["torchvision ResNet", "mmpretrain ResNet", "nothing", "numbers", "integer keys"],
)
@pytest.mark.parametrize("wrapper", ["state_dict", None])
def test_other_weights_are_not_a_riformer(
    tmp_path: Path, state: dict[object, object], wrapper: str | None
) -> None:
    torch.save({wrapper: state} if wrapper else state, tmp_path / "x.pth")
    with pytest.raises(NotRIFormerError):
        load_checkpoint(tmp_path / "x.pth")


def test_a_folded_state_dict_is_refused_rather_than_taken_for_a_deploy_one(
    write_checkpoint: Write, tiny_architecture: Architecture, filled: Callable[..., State]
) -> None:
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(filled(tiny_architecture, Form.FOLDED)))
    assert "missing: backbone.network.0.0.layer_scale_1 (8,)" in caught.value.details
    assert len(caught.value.details) == 5 * 4
