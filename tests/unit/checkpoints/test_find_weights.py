from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    CheckpointKeysError,
    CheckpointMismatchError,
    CheckpointUnreadableError,
    CheckpointUnsafeError,
)
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.network import RIFormer

State = dict[str, Tensor]
Save = Callable[[object], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: object) -> Path:
        torch.save(content, tmp_path / "file.pth")
        return tmp_path / "file.pth"

    return write


def _same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def _under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def _compiled_inside(state: State) -> State:
    return {key.replace("network.", "_orig_mod.network."): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda state: {"net": state, "epoch": 1}, "net"),
        (lambda state: {"params": state}, "params"),
        (lambda state: {"outer": {"inner": [state]}}, "outer.inner.0"),
        (lambda state: {"state_dict": _under("model.", state)}, "state_dict.model"),
        (lambda state: {"state_dict": _under("architecture.", state)}, "state_dict.architecture"),
        (lambda state: _under("net.module.", state), "net.module"),
        (lambda state: _compiled_inside(_under("module.", state)), None),
        (lambda state: {"state_dict": _under("_orig_mod.module.", state)}, None),
        (lambda state: {**_under("module.", state), "n_averaged": torch.tensor(3)}, None),
        (lambda state: {"model_state_dict": state}, None),
    ],
    ids=["net", "params", "nested", "model.", "architecture.", "net.module.", "compiled inside", "compiled",
         "SWA", "usual"],
)  # fmt: skip
def test_the_one_riformer_is_found_wherever_it_is_and_its_place_is_noted(
    save: Save, tiny_state: State, wrap: Callable[[State], object], place: str | None
) -> None:
    found = load_checkpoint(save(wrap(tiny_state)))
    assert _same(found.state, tiny_state)
    assert found.weights is WeightSet.ONLY
    assert found.notes == ((f"the weights were found under {place}",) if place else ())


def test_the_meta_that_belongs_to_nested_weights_is_taken(save: Save, tiny_state: State) -> None:
    meta = {"dataset_meta": {"classes": list("abcdefg")}}
    found = load_checkpoint(save({"checkpoint": {"meta": meta, "state_dict": tiny_state}, "meta": {}}))
    assert found.class_names == tuple("abcdefg")


@pytest.mark.parametrize("prefix", ["student.", ""])
def test_a_teacher_of_another_kind_is_left_out_with_a_note(
    save: Save, tiny_state: State, prefix: str
) -> None:
    state = {
        **_under(prefix, tiny_state),
        "teacher.conv1.weight": torch.ones(2),
        "teacher.fc.bias": torch.ones(2),
    }
    found = load_checkpoint(save({"state_dict": state}))
    assert _same(found.state, tiny_state)
    assert "left out: tensors beside the RIFormer: 2, such as teacher.conv1.weight" in found.notes


def test_of_several_riformers_the_key_chooses_and_none_is_guessed(
    save: Save, tiny_architecture: Architecture, filled: Callable[..., State]
) -> None:
    first, second = filled(tiny_architecture), filled(tiny_architecture, seed=1)
    path = save({"state_dict": {**_under("student.", first), **_under("teacher.", second)}})
    with pytest.raises(CheckpointKeysError, match="holds 2 RIFormers") as caught:
        load_checkpoint(path)
    assert set(caught.value.details) == {"state_dict.student", "state_dict.teacher"}
    assert "--key" in caught.value.remedy
    assert _same(load_checkpoint(path, key="student").state, first)
    taken = load_checkpoint(path, key="state_dict.teacher")
    assert _same(taken.state, second)
    assert "left out: another RIFormer, under state_dict.student" in taken.notes
    with pytest.raises(CheckpointMismatchError, match="no RIFormer under 'pupil'") as wrong:
        load_checkpoint(path, key="pupil")
    assert len(wrong.value.details) == 2


def test_a_damaged_riformer_beside_a_whole_one_is_left_out_and_told(
    save: Save, tiny_architecture: Architecture, filled: Callable[..., State]
) -> None:
    whole, cut = filled(tiny_architecture), filled(tiny_architecture, seed=1)
    del cut["backbone.norm6.weight"]
    path = save({"a": whole, "b": cut})
    found = load_checkpoint(path)
    assert _same(found.state, whole)
    assert any(
        "no whole RIFormer: b: tensors are missing: 1, such as backbone.norm6.weight" in n
        for n in found.notes
    )
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(path, key="b")
    assert caught.value.details == ("missing: backbone.norm6.weight (32,)",)


@pytest.mark.parametrize("prefix", ["backbone.", "", "model."])
def test_a_backbone_without_a_head_is_named_as_that(save: Save, tiny_state: State, prefix: str) -> None:
    bare = {
        prefix + key.removeprefix("backbone."): value
        for key, value in tiny_state.items()
        if key.startswith("backbone.")
    }
    with pytest.raises(CheckpointKeysError, match="backbone without a head") as caught:
        load_checkpoint(save({"state_dict": bare}))
    assert "(backbone, neck and head)" in caught.value.remedy


def test_one_key_spelled_twice_is_refused(save: Save, tiny_state: State) -> None:
    doubled = {**tiny_state, "_orig_mod.head.fc.bias": tiny_state["head.fc.bias"] + 1}
    with pytest.raises(CheckpointKeysError, match=r"head\.fc\.bias twice"):
        load_checkpoint(save(doubled))


PAIRS = pytest.mark.parametrize(
    ("raw", "average"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("state_dict", "ema_state_dict"),
    ],
)


@PAIRS
def test_two_sets_under_the_usual_names_are_told_apart(
    save: Save, tiny_architecture: Architecture, filled: Callable[..., State], raw: str, average: str
) -> None:
    first, second = filled(tiny_architecture), filled(tiny_architecture, seed=1)
    path = save({raw: first, average: second, "epoch": 3})
    default = load_checkpoint(path)
    assert (default.weights, _same(default.state, second)) == (WeightSet.AVERAGED, True)
    (note,) = default.notes
    assert f"the averaged ones are taken, from {average} (--weights raw" in note
    other = load_checkpoint(path, weights=WeightSet.RAW)
    assert (other.weights, _same(other.state, first)) == (WeightSet.RAW, True)
    named = load_checkpoint(path, key=average)
    assert (named.weights, _same(named.state, second)) == (WeightSet.AVERAGED, True)
    with pytest.raises(CheckpointMismatchError, match="names the raw weights"):
        load_checkpoint(path, key=raw, weights=WeightSet.AVERAGED)


def test_two_sets_of_several_models_need_both_choices(
    save: Save, tiny_architecture: Architecture, filled: Callable[..., State]
) -> None:
    states = [filled(tiny_architecture, seed=seed) for seed in range(4)]
    path = save(
        {
            "state_dict": {**_under("student.", states[0]), **_under("teacher.", states[1])},
            "state_dict_ema": {**_under("student.", states[2]), **_under("teacher.", states[3])},
        }
    )
    found = load_checkpoint(path, key="student", weights=WeightSet.RAW)
    assert _same(found.state, states[0])
    assert _same(load_checkpoint(path, key="teacher").state, states[3])
    with pytest.raises(CheckpointKeysError, match="holds 4 RIFormers"):
        load_checkpoint(path)


def test_an_optimiser_object_beside_the_weights_is_an_inert_placeholder(
    save: Save, tiny_model: RIFormer, tiny_state: State
) -> None:
    optimiser = torch.optim.AdamW(tiny_model.requires_grad_(requires_grad=True).parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    path = save(
        {
            "state_dict": tiny_state,
            "optimizer": optimiser,
            "scheduler": schedule,
            "criterion": torch.nn.CrossEntropyLoss(),
        }
    )
    assert _same(load_checkpoint(path).state, tiny_state)


@pytest.mark.parametrize(
    "name",
    [
        "omegaconf.dictconfig.DictConfig",
        "pytorch_lightning.callbacks.Timer",
        "mmseg.models.Head",
        "timm.optim.Lion",
    ],
)
def test_objects_of_training_frameworks_beside_the_weights_are_inert(
    save: Save, monkeypatch: pytest.MonkeyPatch, tiny_state: State, name: str
) -> None:
    module, _, cls = name.rpartition(".")
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    made: Any = type(cls, (), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], cls, made, raising=False)
    path = save({"state_dict": tiny_state, "hyper_parameters": made()})
    assert _same(load_checkpoint(path).state, tiny_state)


class Net(torch.nn.Module):
    """A module of a user's own code."""


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (torch.nn.Linear(2, 2), CheckpointUnreadableError),
        ({"model": torch.nn.Linear(2, 2), "epoch": 1}, CheckpointUnreadableError),
        ({"model": torch.nn.Sequential(torch.nn.Linear(2, 2), Net())}, CheckpointUnsafeError),
    ],
    ids=["alone", "under a key", "own code"],
)
def test_a_whole_pickled_module_says_to_save_its_state_dict(
    save: Save, content: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"save its state_dict\(\)"):
        load_checkpoint(save(content))
