from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from riformer_deploy.common.enums import Method
from riformer_deploy.common.errors import CalibrationError
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization import calibration
from riformer_deploy.quantization.calibration import (
    Calibration,
    CalibrationConfig,
    calibrate,
    calibration_key,
    kept_calibration,
)
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.system.user_files import calibration_cache

QUICK = CalibrationConfig(method=Method.MAX)


def _images(content: str = "some", scale: float = 1.0) -> CalibrationSet:
    batch = (torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * scale).numpy()
    return CalibrationSet(
        source="",
        random=False,
        count=4,
        content_sha256=content,
        warnings=(),
        batches=lambda: iter([batch]),
    )


@pytest.fixture
def folded(tiny_model: RIFormer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RIFormer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return fold(tiny_model)


def _calibrate(folded: RIFormer, said: list[str], config: CalibrationConfig = QUICK) -> Calibration:
    return calibrate(Observations(folded, _images(), said.append), "weights", config).calibration


def test_every_layer_and_block_gets_its_figures(folded: RIFormer) -> None:
    found = _calibrate(folded, [])
    blocks = {name for stage in folded.architecture.block_names for name in stage}
    assert set(found.ranges) == set(quantizable(folded))
    assert set(found.smoothquant_scales) == {f"backbone.network.{index}.proj" for index in (1, 3, 5)}
    assert found.residual_ranges == {}
    assert set(found.largest) == set(found.ranges)
    for name in set(found.ranges) - set(found.smoothquant_scales):  # these were equalised first
        assert found.ranges[name] == pytest.approx(found.largest[name])
    assert set(found.abs_max) == blocks | set(found.smoothquant_scales) | {"backbone.patch_embed.proj"}


@pytest.mark.untraced
def test_residual_inputs_and_results_get_ranges_by_the_method_if_asked_for(folded: RIFormer) -> None:
    largest: dict[str, float] = {}

    def see(name: str, value: Tensor) -> None:
        largest[name] = float(value.abs().max())

    for block in (name for stage in folded.architecture.block_names for name in stage):
        folded.get_submodule(f"{block}.norm2").register_forward_pre_hook(
            lambda _module, inputs, name=f"{block}.stream": see(name, inputs[0])
        )
        folded.get_submodule(f"{block}.mlp.fc2").register_forward_hook(
            lambda _module, _inputs, result, name=f"{block}.branch": see(name, result)
        )
        folded.get_submodule(block).register_forward_hook(
            lambda _module, _inputs, result, name=f"{block}.result": see(name, result)
        )
    for embedding in ("backbone.patch_embed", *(f"backbone.network.{at}" for at in (1, 3, 5))):
        folded.get_submodule(embedding).register_forward_hook(
            lambda _module, _inputs, result, name=f"{embedding}.result": see(name, result)
        )
    found = {
        method: _calibrate(folded, [], CalibrationConfig(method=method, residual=True)) for method in Method
    }
    assert found[Method.MAX].residual_ranges == pytest.approx(largest)
    assert (
        len({tuple(each.residual_ranges.values()) for each in found.values()}) >= 3
    )  # entropy keeps noise whole
    for method, each in found.items():
        assert each.residual_ranges.keys() == largest.keys()
        assert all(0 < top <= largest[name] * (1 + 1e-6) for name, top in each.residual_ranges.items())
        assert each.ranges == _calibrate(folded, [], CalibrationConfig(method=method)).ranges


def test_absolute_maxima_see_images_activations_and_weights(folded: RIFormer) -> None:
    seen = float(_images().spread(4).max())
    assert _calibrate(folded, []).abs_max["backbone.patch_embed.proj"] >= abs(seen)
    folded.get_parameter("backbone.patch_embed.proj.bias")[0] = -70000.0
    block = folded.get_submodule("backbone.network.4.1.mlp.fc2")
    block.get_parameter("weight")[0, 0] = 80000.0
    abs_max = calibrate(Observations(folded, _images()), "others", QUICK).calibration.abs_max
    assert abs_max["backbone.patch_embed.proj"] >= 70000
    assert abs_max["backbone.network.4.1"] >= 80000


def test_absolute_maxima_see_a_norms_weights_and_if_asked_for_fc1s_product_with_what_norm2_takes(
    folded: RIFormer,
) -> None:
    block = "backbone.network.4.1"
    fc1 = folded.get_parameter(f"{block}.mlp.fc1.weight")
    largest = 0.0

    def see(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal largest
        largest = float(torch.nn.functional.conv2d(inputs[0], fc1).abs().max())

    handle = folded.get_submodule(f"{block}.norm2").register_forward_pre_hook(see)
    folded.get_parameter(f"{block}.norm_reparam.bias").fill_(50.0)
    plain, asked = (
        _calibrate(folded, [], CalibrationConfig(ranges=False, products=products))
        for products in (False, True)
    )
    handle.remove()
    assert plain.abs_max[block] < largest == pytest.approx(asked.abs_max[block])
    folded.get_parameter(f"{block}.norm_reparam.weight")[0] = 80000.0
    assert calibrate(Observations(folded, _images()), "others", QUICK).calibration.abs_max[block] >= 80000


def test_absolute_maxima_see_a_norms_result_before_its_bias_if_asked_for(folded: RIFormer) -> None:
    """The bias undoes what the weight makes too large for half, which stores the product all the same."""
    block = "backbone.network.4.1"
    norm = folded.get_submodule(f"{block}.norm_reparam")
    folded.get_parameter("backbone.network.4.0.mlp.fc2.bias")[0] = 100.0
    norm.get_parameter("weight")[0], norm.get_parameter("bias")[0] = 8500.0, -30000.0
    seen: list[float] = []
    handle = norm.register_forward_hook(
        lambda _module, _inputs, result: seen.append(float(result[:, 0].max()) + 30000)
    )
    plain, asked = (
        _calibrate(folded, [], CalibrationConfig(ranges=False, branches=branches))
        for branches in (False, True)
    )
    handle.remove()
    assert plain.abs_max[block] <= 30000 < asked.abs_max[block]
    assert asked.abs_max[block] == pytest.approx(seen[0])


def test_the_second_time_it_comes_from_the_cache(folded: RIFormer) -> None:
    first: list[str] = []
    again: list[str] = []
    assert _calibrate(folded, first) == _calibrate(folded, again)
    assert first[0] == "calibrating, largest values: 0 of 4 images"
    assert again == []


def test_an_interruption_afterwards_can_tell_that_it_is_kept(folded: RIFormer) -> None:
    assert kept_calibration(None) == ""
    result = calibrate(Observations(folded, _images()), "weights", QUICK)
    assert kept_calibration(result) == f"the calibration on 4 images is kept in {calibration_cache()}"
    for path in calibration_cache().iterdir():
        path.unlink()
    assert kept_calibration(result) == ""  # as where it could not be written


@pytest.mark.parametrize("damage", ["truncated", "a digit", "empty", "not text", "another key"])
def test_a_damaged_or_foreign_cache_is_never_used(folded: RIFormer, damage: str) -> None:
    true = _calibrate(folded, [])
    (path,) = calibration_cache().iterdir()
    data = path.read_bytes()
    if damage == "another key":
        calibrate(Observations(folded, _images()), "other weights", QUICK)
        (other,) = (item for item in calibration_cache().iterdir() if item != path)
        path.write_bytes(other.read_bytes())
    else:
        spot = data.index(b"ranges") + data[data.index(b"ranges") :].index(b".") + 1
        digit = b"1" if data[spot : spot + 1] != b"1" else b"2"
        path.write_bytes(
            {
                "truncated": data[:-20],
                "a digit": data[:spot] + digit + data[spot + 1 :],
                "empty": b"",
                "not text": b"\xff" * 99,
            }[damage]
        )
    said: list[str] = []
    assert _calibrate(folded, said) == true
    assert said
    assert path.read_bytes() == data


def test_a_cache_that_cannot_be_written_is_no_failure(
    folded: RIFormer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _calibrate(folded, []).ranges
    assert "could not be cached" in caplog.text


def test_the_key_depends_on_weights_images_wish_and_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [
        calibration_key("a", _images(), QUICK),
        calibration_key("b", _images(), QUICK),
        calibration_key("a", _images("other"), QUICK),
        calibration_key("a", dataclasses.replace(_images(), count=5), QUICK),
        *(
            calibration_key("a", _images(), CalibrationConfig(method=method))
            for method in Method
            if method is not Method.MAX
        ),
        calibration_key("a", _images(), dataclasses.replace(QUICK, equalize=False)),
        calibration_key("a", _images(), dataclasses.replace(QUICK, ranges=False)),
        calibration_key("a", _images(), dataclasses.replace(QUICK, residual=True)),
    ]
    monkeypatch.setattr(calibration, "CACHE_VERSION", 999)
    keys.append(calibration_key("a", _images(), QUICK))
    assert len(set(keys)) == len(keys)


def test_without_ranges_one_pass_looks_for_absolute_maxima(folded: RIFormer) -> None:
    said: list[str] = []
    found = _calibrate(folded, said, CalibrationConfig(ranges=False))
    assert (found.ranges, found.residual_ranges, found.smoothquant_scales) == ({}, {}, {})
    assert len(said) == 1
    assert found.abs_max
    assert found.largest == _calibrate(folded, []).largest


def test_a_model_that_overflows_float32_is_refused_by_layer(folded: RIFormer) -> None:
    folded.backbone.patch_embed.proj.weight.fill_(3e38)
    with pytest.raises(CalibrationError, match="overflows float32") as caught:
        calibrate(Observations(folded, _images(scale=100)), "weights", QUICK)
    assert "input of backbone.network.0.0.mlp.fc1" in caught.value.details
    assert not calibration_cache().exists()
