from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riformer_deploy.checkpoints.load import check_expectations, load_checkpoint
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    CheckpointKeysError,
    CheckpointMismatchError,
    CheckpointUnreadableError,
    CheckpointValuesError,
    OptionError,
)
from riformer_deploy.model.variants import get_variant

Write = Callable[..., Path]
State = dict[str, Tensor]


@pytest.mark.parametrize("wanted", [WeightSet.AVERAGED, WeightSet.RAW])
def test_a_set_that_the_file_does_not_hold_is_refused(write_checkpoint: Write, wanted: WeightSet) -> None:
    with pytest.raises(CheckpointMismatchError, match="one set of weights"):
        load_checkpoint(write_checkpoint(), weights=wanted)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text", None])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_of_something_else_is_unreadable(tmp_path: Path, content: object, *, legacy: bool) -> None:
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointUnreadableError, match="dictionary or state dict was expected"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_weight_that_is_no_finite_number_is_named(
    write_checkpoint: Write, tiny_state: State, *, legacy: bool
) -> None:
    tiny_state["head.fc.bias"][2:4] = float("nan")
    tiny_state["backbone.norm6.weight"][0] = float("-inf")
    tiny_state["backbone.patch_embed.proj.bias"] = torch.ones(8, dtype=torch.int64)
    tiny_state["backbone.norm6.bias"] = torch.full((32,), 1e300, dtype=torch.float64)
    tiny_state["backbone.network.0.0.norm2.bias"] = torch.ones(8).to_sparse()
    with pytest.raises(CheckpointValuesError) as caught:
        load_checkpoint(write_checkpoint(legacy=legacy))
    found = {detail.split(":")[0]: detail for detail in caught.value.details}
    assert found.keys() == {
        "head.fc.bias",
        "backbone.norm6.weight",
        "backbone.norm6.bias",
        "backbone.patch_embed.proj.bias",
        "backbone.network.0.0.norm2.bias",
    }
    assert "2 of 7 values are NaN" in found["head.fc.bias"]
    assert "1 of 32 values are infinite" in found["backbone.norm6.weight"]
    assert "torch.int64" in found["backbone.patch_embed.proj.bias"]


def test_published_variants_are_recognised_by_shape_whatever_the_head(
    write_checkpoint: Write, filled: Callable[..., State]
) -> None:
    s12 = get_variant("riformer-s12_in1k").architecture
    found = load_checkpoint(write_checkpoint(filled(replace(s12, num_classes=5))))
    assert [variant.name for variant in found.variants] == ["riformer-s12_in1k", "riformer-s12_in1k-384"]
    check_expectations(found, architecture=s12, num_classes=5)
    with pytest.raises(CheckpointMismatchError) as caught:
        check_expectations(found, architecture=s12, num_classes=None)
    assert caught.value.details == ("classes: 5, but 1000 were asked for",)


def test_every_contradiction_to_what_was_asked_for_is_listed(write_checkpoint: Write) -> None:
    found = load_checkpoint(write_checkpoint())
    check_expectations(found, architecture=None, num_classes=None)
    check_expectations(found, architecture=None, num_classes=7)
    assert found.variants == ()
    with pytest.raises(CheckpointMismatchError) as caught:
        check_expectations(found, architecture=get_variant("riformer-m36_in1k").architecture, num_classes=9)
    kinds = [detail.split(":")[0] for detail in caught.value.details]
    assert kinds == ["layers", "embed_dims", "hidden_dims", "classes"]


@pytest.mark.parametrize("weights", ["only", WeightSet.ONLY, "best", "", "Averaged"])
def test_weights_that_are_neither_averaged_nor_raw_are_an_option_error(
    write_checkpoint: Write, weights: WeightSet | str
) -> None:
    with pytest.raises(OptionError, match="weights are averaged or raw"):
        load_checkpoint(write_checkpoint(), weights=weights)


def test_keys_and_values_that_are_wrong_are_listed_together(
    write_checkpoint: Write, tiny_state: State
) -> None:
    tiny_state["head.fc.bias"][0], tiny_state["head.fc.bias"][1] = float("nan"), float("inf")
    del tiny_state["backbone.norm6.weight"]
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint())
    assert caught.value.details == (
        "missing: backbone.norm6.weight (32,)",
        "head.fc.bias: 2 of 7 values are NaN or infinite",
    )


def test_stray_keys_are_named_and_make_no_block(write_checkpoint: Write, tiny_state: State) -> None:
    stray = [
        "backbone.network.0.40.foo",
        "backbone.network.2.7.layer_scale_1",
        "backbone.network.2.7.layer_scale_2",
    ]
    tiny_state.update({key: torch.ones(8) for key in stray})
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint())
    assert sorted(caught.value.details) == [f"unexpected: {key}" for key in stray]


def _config(layers: list[int], classes: int = 7) -> str:
    arch = f"dict(layers={layers}, embed_dims=[8, 16, 24, 32])"
    head = f"dict(type='LinearClsHead', num_classes={classes})"
    return (
        f"model = dict(type='ImageClassifier', backbone=dict(type='RIFormer', arch={arch}), "
        f"neck=dict(type='GlobalAveragePooling'), head={head})"
    )


def test_a_stage_cut_short_is_refused_by_the_stored_config(
    write_checkpoint: Write, tiny_state: State
) -> None:
    meta = {"cfg": _config([1, 1, 2, 1])}
    assert load_checkpoint(write_checkpoint(meta=meta)).architecture.layers == (1, 1, 2, 1)
    cut = {key: v for key, v in tiny_state.items() if not key.startswith("backbone.network.4.1.")}
    with pytest.raises(CheckpointKeysError, match="another network than the config") as caught:
        load_checkpoint(write_checkpoint(cut, meta=meta))
    assert caught.value.details == ("layers: the tensors say [1, 1, 1, 1], the stored config [1, 1, 2, 1]",)


def test_a_stored_config_of_other_classes_is_refused(write_checkpoint: Write) -> None:
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(meta={"cfg": _config([1, 1, 2, 1], classes=9)}))
    assert caught.value.details == ("num_classes: the tensors say 7, the stored config 9",)


def test_a_config_of_another_function_is_refused_with_all_its_settings(write_checkpoint: Write) -> None:
    text = _config([1, 1, 2, 1], classes=9).replace(
        "type='RIFormer'", "type='RIFormer', act_cfg=dict(type='ReLU'), in_stride=2, norm_eps=0.1"
    )
    with pytest.raises(CheckpointMismatchError, match=r"another function .* 3 setting\(s\)") as caught:
        load_checkpoint(write_checkpoint(meta={"cfg": text}))
    assert caught.value.exit_code == 15
    assert "meta['cfg']" in caught.value.remedy
    assert caught.value.details == (
        "model.backbone.act_cfg.type is 'ReLU'; computed here: GELU",
        "model.backbone.in_stride is 2; computed here: 4",
        "model.backbone.norm_eps is 0.1; this toolkit does not know that setting",
        "num_classes: the tensors say 7, the stored config 9",
    )


def test_a_setting_is_refused_before_the_tensors_that_it_explains(
    write_checkpoint: Write, tiny_state: State
) -> None:
    tiny_state["backbone.norm2.weight"] = tiny_state["backbone.norm2.bias"] = torch.ones(16)
    text = _config([1, 1, 2, 1]).replace("type='RIFormer'", "type='RIFormer', out_indices=[2, 4]")
    with pytest.raises(CheckpointMismatchError) as caught:
        load_checkpoint(write_checkpoint(meta={"cfg": text}))
    (detail,) = caught.value.details
    assert detail.startswith("model.backbone.out_indices is [2, 4]")


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("stored", [False, True], ids=["no config", "config"])
def test_other_pictures_than_rgb_are_refused_by_their_channels(
    write_checkpoint: Write, tiny_state: State, channels: int, *, stored: bool
) -> None:
    key = "backbone.patch_embed.proj.weight"
    tiny_state[key] = tiny_state[key].mean(1, keepdim=True).repeat(1, channels, 1, 1)
    text = _config([1, 1, 2, 1]).replace("'RIFormer'", f"'RIFormer', in_channels={channels}")
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint(meta={"cfg": text} if stored else {}))
    assert f"takes {channels}-channel pictures; only RGB" in caught.value.message
    said = (f"model.backbone.in_channels is {channels}; computed here: 3",) if stored else ()
    assert caught.value.details == (f"{key} is (8, {channels}, 7, 7)", *said)


def test_buffers_of_a_loss_are_left_out_with_a_note(write_checkpoint: Write, tiny_state: State) -> None:
    plain = load_checkpoint(write_checkpoint(name="plain.pth"))
    tiny_state["head.loss_module.class_weight"] = torch.ones(7, dtype=torch.int64)
    found = load_checkpoint(write_checkpoint())
    assert found.notes == ("left out, since only training uses it: head.loss_module.class_weight",)
    assert (plain.notes, plain.stored_dtypes) == ((), found.stored_dtypes)
    assert found.weights_sha256 == plain.weights_sha256
    tiny_state["head.losses.x"] = torch.ones(1)
    with pytest.raises(CheckpointKeysError) as caught:
        load_checkpoint(write_checkpoint())
    assert caught.value.details == ("unexpected: head.losses.x",)


def test_a_file_under_a_published_name_with_another_hash_is_refused(write_checkpoint: Write) -> None:
    name = get_variant("riformer-s12_in1k").file_name
    with pytest.raises(CheckpointUnreadableError, match="not the published file of that name"):
        load_checkpoint(write_checkpoint(name=name))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_format_without_checksums_is_noted(write_checkpoint: Write, *, legacy: bool) -> None:
    found = load_checkpoint(write_checkpoint(legacy=legacy))
    assert any("no checksums" in note for note in found.notes) is legacy
    assert found.checksums is not legacy


def test_weights_that_share_their_values_until_they_are_more_than_the_file_are_refused(
    write_checkpoint: Write, tiny_state: State
) -> None:
    largest = torch.zeros(max(value.numel() for value in tiny_state.values()))
    shared = {key: largest[: value.numel()].view(value.shape) for key, value in tiny_state.items()}
    with pytest.raises(CheckpointUnreadableError, match="states weights of"):
        load_checkpoint(write_checkpoint(shared))
