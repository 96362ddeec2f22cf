from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import CheckpointError, CheckpointKeysError
from riformer_deploy.common.hashing import sha256_of
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fuse

Write = Callable[..., Path]
State = dict[str, Tensor]


def _same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_training_checkpoint_that_mmengine_wrote_loads(digits_checkpoint: Path) -> None:
    found = load_checkpoint(digits_checkpoint)
    assert found.architecture == Architecture(
        layers=(2, 2, 6, 2), embed_dims=(16, 32, 80, 128), hidden_dims=(64, 128, 320, 512), num_classes=10
    )
    assert found.form is Form.TRAINING
    assert found.weights is WeightSet.ONLY
    assert found.stored_dtypes == ("float32",)
    assert found.class_names == tuple("0123456789")
    assert found.sha256 == sha256_of(digits_checkpoint)
    assert found.meta["mmengine_version"] == "0.10.7"
    assert {key: tuple(value.shape) for key, value in found.state.items()} == found.architecture.shapes(
        Form.TRAINING
    )


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.untraced
def test_every_disguise_gives_the_same_weights(
    write_checkpoint: Write, tiny_state: State, wrapper: str | None, prefix: str, *, legacy: bool
) -> None:
    found = load_checkpoint(write_checkpoint(wrapper=wrapper, prefix=prefix, legacy=legacy))
    assert _same(found.state, tiny_state)
    assert found.form is Form.TRAINING
    assert found.weights is WeightSet.ONLY


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32(
    write_checkpoint: Write, tiny_state: State, dtype: torch.dtype, *, legacy: bool
) -> None:
    found = load_checkpoint(write_checkpoint(dtype=dtype, legacy=legacy))
    assert _same(found.state, {key: value.to(dtype).float() for key, value in tiny_state.items()})
    assert found.stored_dtypes == (str(dtype).removeprefix("torch."),)
    assert all(value.dtype is torch.float32 and value.is_contiguous() for value in found.state.values())


def test_mixed_types_are_all_named(write_checkpoint: Write, tiny_state: State) -> None:
    tiny_state["head.fc.bias"] = tiny_state["head.fc.bias"].half()
    assert load_checkpoint(write_checkpoint()).stored_dtypes == ("float16", "float32")


def test_parameters_and_strided_views_load_as_plain_contiguous_tensors(
    write_checkpoint: Write, tiny_state: State
) -> None:
    expected = dict(tiny_state)
    tiny_state["head.fc.bias"] = torch.nn.Parameter(tiny_state["head.fc.bias"])
    tiny_state["head.fc.weight"] = tiny_state["head.fc.weight"].T.contiguous().T
    found = load_checkpoint(write_checkpoint())
    assert _same(found.state, expected)
    assert not any(value.requires_grad for value in found.state.values())
    assert found.state["head.fc.weight"].is_contiguous()


def test_a_deploy_form_checkpoint_is_told_from_a_training_one(
    write_checkpoint: Write, tiny_model: RIFormer
) -> None:
    state = fuse(tiny_model).state_dict()
    found = load_checkpoint(write_checkpoint(state))
    assert found.form is Form.DEPLOY
    assert _same(found.state, state)


def test_optimiser_state_and_log_buffers_beside_the_weights_are_no_hindrance(
    write_checkpoint: Write, tiny_state: State, tiny_model: RIFormer
) -> None:
    optimiser = torch.optim.AdamW(tiny_model.requires_grad_(requires_grad=True).parameters(), lr=1e-3)
    tiny_model(torch.ones(1, 3, 32, 32)).sum().backward()
    expected = {key: value.clone() for key, value in tiny_state.items()}
    optimiser.step()
    found = load_checkpoint(
        write_checkpoint(
            expected, optimizer=optimiser.state_dict(), message_hub={"loss": np.ones(3), "lr": np.float64(1)}
        )
    )
    assert _same(found.state, expected)


def _averaged(write: Write, architecture: Architecture, filled: Callable[..., State], prefix: str) -> Path:
    raw = {f"module.{prefix}{key}": value for key, value in filled(architecture, seed=5).items()}
    return write(prefix=prefix, ema_state_dict={**raw, "steps": torch.tensor(7)})


@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "DDP"])
@pytest.mark.parametrize(
    ("wanted", "seed", "taken"),
    [
        (None, 0, WeightSet.AVERAGED),
        (WeightSet.AVERAGED, 0, WeightSet.AVERAGED),
        (WeightSet.RAW, 5, WeightSet.RAW),
    ],
)
def test_a_moving_average_checkpoint_gives_the_set_that_was_asked_for(
    write_checkpoint: Write,
    tiny_architecture: Architecture,
    filled: Callable[..., State],
    prefix: str,
    wanted: WeightSet | None,
    seed: int,
    taken: WeightSet,
) -> None:
    path = _averaged(write_checkpoint, tiny_architecture, filled, prefix)
    found = load_checkpoint(path, weights=wanted)
    assert found.weights is taken
    assert _same(found.state, filled(tiny_architecture, seed=seed))


def test_stored_normalisation_is_taken_out_of_the_weights_and_kept(
    write_checkpoint: Write, tiny_state: State
) -> None:
    expected = dict(tiny_state)
    tiny_state["data_preprocessor.mean"] = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    tiny_state["data_preprocessor.std"] = torch.tensor([4.0, 5.0, 6.0]).reshape(3, 1, 1)
    found = load_checkpoint(write_checkpoint(prefix="module."))
    assert (found.mean, found.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert _same(found.state, expected)


def test_without_stored_normalisation_there_is_none(write_checkpoint: Write) -> None:
    found = load_checkpoint(write_checkpoint())
    assert (found.mean, found.std) == (None, None)


def test_the_weights_hash_does_not_depend_on_how_they_are_stored(
    write_checkpoint: Write, tiny_state: State
) -> None:
    plain = load_checkpoint(write_checkpoint())
    reordered = dict(reversed(tiny_state.items()))
    stored = (
        write_checkpoint(legacy=True, prefix="module.", meta={"epoch": 9}),
        write_checkpoint(wrapper=None, dtype=torch.float64),
        write_checkpoint(reordered),
    )
    for path in stored:
        assert load_checkpoint(path).weights_sha256 == plain.weights_sha256


def test_the_weights_hash_changes_with_the_smallest_change_of_a_weight(
    write_checkpoint: Write, tiny_state: State
) -> None:
    before = load_checkpoint(write_checkpoint()).weights_sha256
    bias = tiny_state["head.fc.bias"]
    bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    assert load_checkpoint(write_checkpoint()).weights_sha256 != before


def test_meta_keeps_plain_data_only(write_checkpoint: Write) -> None:
    meta = {
        "epoch": 3,
        "loss": [0.5, np.float32(1), None],
        "nested": {"ok": (True, b"raw"), "bad": argparse.Namespace(a=1), 7: "seven"},
        "tensor": torch.ones(2),
        ("tuple", "key"): 1,
    }
    assert load_checkpoint(write_checkpoint(meta=meta)).meta == {
        "epoch": 3,
        "loss": [0.5, None],
        "nested": {"ok": (True, b"raw"), 7: "seven"},
    }


@pytest.mark.parametrize("meta", [None, [], "text", {}])
def test_absent_or_odd_meta_is_empty(write_checkpoint: Write, meta: object) -> None:
    assert load_checkpoint(write_checkpoint(meta=meta)).meta == {}


def test_meta_that_holds_itself_is_no_crash(write_checkpoint: Write) -> None:
    meta: dict[str, Any] = {"epoch": 3}
    meta["itself"] = meta
    try:
        found = load_checkpoint(write_checkpoint(meta=meta))
    except CheckpointError:
        return
    assert found.meta["epoch"] == 3


@pytest.mark.parametrize(
    "names", [["a"], [], "abcdefg", 7, [np.float64(1)] * 7], ids=["few", "none", "text", "int", "inert"]
)
def test_class_names_that_do_not_fit_the_outputs_are_not_taken(
    write_checkpoint: Write, names: object
) -> None:
    found = load_checkpoint(write_checkpoint(meta={"dataset_meta": {"classes": names}}))
    assert found.class_names is None
    stored = isinstance(names, list)
    assert [note for note in found.notes if "class names that are stored were not taken" in note] == list(
        found.notes
    )
    assert bool(found.notes) is stored


@pytest.mark.parametrize(("weights", "seed"), [("averaged", 0), ("raw", 1), (None, 0)])
def test_paths_and_weights_may_be_given_as_text(
    write_checkpoint: Write,
    tiny_architecture: Architecture,
    filled: Callable[..., State],
    weights: str | None,
    seed: int,
) -> None:
    raw = {f"module.{key}": value for key, value in filled(tiny_architecture, seed=1).items()}
    found = load_checkpoint(str(write_checkpoint(ema_state_dict=raw)), weights=weights)
    assert _same(found.state, filled(tiny_architecture, seed=seed))
    assert found.weights is WeightSet(weights or "averaged")


def test_an_empty_moving_average_is_none(write_checkpoint: Write, tiny_state: State) -> None:
    found = load_checkpoint(write_checkpoint(ema_state_dict={}))
    assert found.weights is WeightSet.ONLY
    assert _same(found.state, tiny_state)


def test_norms_of_other_stages_are_left_out_with_a_note_or_kept_where_asked_for(
    write_checkpoint: Callable[..., Path], tiny_state: dict[str, Tensor], tiny_architecture: Architecture
) -> None:
    for index, width in ((0, 8), (2, 16), (5, 32)):
        tiny_state[f"backbone.norm{index}.weight"] = torch.full((width,), float(index))
        tiny_state[f"backbone.norm{index}.bias"] = torch.zeros(width)
    path = write_checkpoint(tiny_state)
    plain = load_checkpoint(path)
    assert plain.state.keys() == tiny_architecture.shapes(Form.TRAINING).keys()
    assert len(plain.notes) == 6
    assert plain.notes[0] == "left out, since no class score depends on it: backbone.norm0.weight"
    kept = load_checkpoint(path, out_indices=(0, 2, 4, 6))  # norm4 is not in the file
    assert kept.state.keys() == tiny_architecture.shapes(Form.TRAINING, (0, 2, 6)).keys()
    assert kept.notes == plain.notes[4:]


def test_a_norm_of_another_stage_must_have_its_width(
    write_checkpoint: Callable[..., Path], tiny_state: dict[str, Tensor]
) -> None:
    tiny_state["backbone.norm2.weight"] = torch.ones(15)
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(tiny_state), out_indices=(2, 6))
    assert set(caught.value.details) == {
        "missing: backbone.norm2.bias (16,)",
        "shape: backbone.norm2.weight is (15,), expected (16,)",
    }
