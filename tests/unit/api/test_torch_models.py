from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from riformer_deploy.api.torch_models import get_model, inference_model
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    CheckpointMismatchError,
    CheckpointUnreadableError,
    ImageError,
    OptionError,
)
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.variants import VARIANTS


def test_a_model_by_name_is_in_training_form_in_evaluation_mode() -> None:
    model = get_model("riformer-s12_in1k", num_classes=3)
    assert (model.form, model.training) == (Form.TRAINING, False)
    assert model.architecture == dataclasses.replace(
        VARIANTS["riformer-s12_in1k"].architecture, num_classes=3
    )
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_model_of_an_architecture_of_one_s_own(tiny_architecture: Architecture) -> None:
    model = get_model(tiny_architecture)
    assert isinstance(model, RIFormer)
    assert model.architecture == tiny_architecture
    assert get_model(tiny_architecture, num_classes=11).head.fc.out_features == 11


def test_a_checkpoint_s_weights_are_the_model_s(
    tiny_architecture: Architecture, tiny_checkpoint: Path, tiny_model: RIFormer
) -> None:
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    for path in (tiny_checkpoint, str(tiny_checkpoint)):
        model = get_model(tiny_architecture, path)
        assert not model.training
        torch.testing.assert_close(model(images), tiny_model(images), rtol=0, atol=0)


def test_the_form_is_the_checkpoint_s(
    write_checkpoint: Callable[..., Path],
    filled: Callable[..., dict[str, Tensor]],
    tiny_architecture: Architecture,
) -> None:
    path = write_checkpoint(filled(tiny_architecture, Form.DEPLOY))
    assert get_model(tiny_architecture, path).form is Form.DEPLOY


def test_another_model_s_checkpoint_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointMismatchError, match="layers") as caught:
        get_model("riformer-s12_in1k", tiny_checkpoint)
    assert "classes: 7, but 1000 were asked for" in caught.value.details


def test_the_architecture_s_class_count_must_be_the_checkpoint_s(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    assert get_model(tiny_architecture, tiny_checkpoint, num_classes=7).architecture.num_classes == 7
    with pytest.raises(CheckpointMismatchError, match="classes: 7, but 8 were asked for"):
        get_model(dataclasses.replace(tiny_architecture, num_classes=8), tiny_checkpoint)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match="riformer-s13_in1k") as caught:
        get_model("riformer-s13_in1k")
    assert "riformer-m48_in1k-384" in str(caught.value)


def test_a_missing_checkpoint_is_an_error_and_no_initial_weights(
    tmp_path: Path, tiny_architecture: Architecture
) -> None:
    with pytest.raises(CheckpointUnreadableError):
        get_model(tiny_architecture, tmp_path / "absent.pth")


def test_models_are_trainable_whether_or_not_they_were_loaded(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    for model in (get_model(tiny_architecture), get_model(tiny_architecture, tiny_checkpoint)):
        model(torch.ones(1, 3, 32, 32)).sum().backward()
        assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize(("weights", "seed"), [("averaged", 0), ("raw", 1), (WeightSet.RAW, 1)])
def test_the_weights_asked_for_are_the_model_s(
    write_checkpoint: Callable[..., Path],
    filled: Callable[..., dict[str, Tensor]],
    tiny_architecture: Architecture,
    weights: WeightSet | str,
    seed: int,
) -> None:
    raw = {f"module.{key}": value for key, value in filled(tiny_architecture, seed=1).items()}
    path = write_checkpoint(ema_state_dict={**raw, "steps": torch.tensor(7)})  # as mmengine's EMAHook saves
    model = get_model(tiny_architecture, path, weights=weights)
    assert torch.equal(model.head.fc.weight, filled(tiny_architecture, seed=seed)["head.fc.weight"])


def test_another_class_count_than_the_checkpoint_s_is_a_new_head_and_a_warning(
    tiny_architecture: Architecture, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = get_model(tiny_architecture, tiny_checkpoint, num_classes=8)
    assert "head.fc.weight, head.fc.bias: initial values are taken" in caplog.text
    assert model.head.fc.out_features == 8
    assert model.class_names is None  # those of the checkpoint name seven others
    same = get_model(tiny_architecture, tiny_checkpoint)
    assert all(
        torch.equal(value, same.state_dict()[key])
        for key, value in model.state_dict().items()
        if not key.startswith("head.")
    )


def test_deploy_gives_the_deploy_form_of_the_checkpoint(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    model = get_model(tiny_architecture, tiny_checkpoint, deploy=True)
    assert model.backbone.deploy
    assert get_model(tiny_architecture, deploy=True).form is Form.DEPLOY
    torch.testing.assert_close(model(images), get_model(tiny_architecture, tiny_checkpoint)(images))


def test_out_indices_give_maps_of_several_stages_and_say_which_norms_are_new(
    tiny_architecture: Architecture, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = get_model(tiny_architecture, tiny_checkpoint, out_indices=(0, 2, 6))
    assert "backbone.norm0.weight, backbone.norm0.bias, backbone.norm2.weight" in caplog.text
    assert "norm6" not in caplog.text
    images = torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    maps = model.extract_feat(images, stage="backbone")
    assert [tuple(value.shape[1:]) for value in maps] == [(8, 16, 12), (16, 8, 6), (32, 2, 2)]
    torch.testing.assert_close(model(images), get_model(tiny_architecture, tiny_checkpoint)(images))


def test_norms_of_several_stages_are_the_checkpoint_s(
    tiny_architecture: Architecture, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = get_model(tiny_architecture, tiny_checkpoint, out_indices=(0, 4, 6))
    torch.nn.init.constant_(trained.backbone.get_parameter("norm0.weight"), 3.0)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "stages.pth")
    caplog.clear()
    model = get_model(tiny_architecture, tmp_path / "stages.pth", out_indices=(0, 4, 6))
    assert not caplog.text
    assert model.state_dict().keys() == trained.state_dict().keys()
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())
    assert get_model(tiny_architecture, tmp_path / "stages.pth").backbone.out_indices == (6,)


@pytest.fixture
def published(
    tiny_architecture: Architecture, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The name of a published model, the tiny one, whose file was fetched before."""
    digest = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    variant = dataclasses.replace(
        VARIANTS["riformer-s12_in1k"],
        name="tiny",
        architecture=tiny_architecture,
        image_size_px=32,
        resize_short_edge_px=36,
        file_name=f"tiny-{digest[:8]}.pth",
    )
    monkeypatch.setitem(VARIANTS, "tiny", variant)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(tiny_checkpoint, folder / variant.file_name)
    return "tiny"


def test_pretrained_true_is_the_published_file_in_pytorch_s_hub_folder(
    published: str, tiny_model: RIFormer
) -> None:
    model = get_model(published, pretrained=True)
    assert torch.equal(model.head.fc.weight, tiny_model.head.fc.weight)
    assert model.preprocessing == VARIANTS["tiny"].preprocessing
    answer = inference_model(published, np.zeros((40, 50, 3), np.uint8))
    assert answer["pred_class"].startswith("class ")


def test_pretrained_true_needs_a_published_model(tiny_architecture: Architecture) -> None:
    with pytest.raises(OptionError, match="architecture or config of your own"):
        get_model(tiny_architecture, pretrained=True)


def test_a_model_goes_to_the_device_asked_for(tiny_architecture: Architecture) -> None:
    model = get_model(tiny_architecture, device="meta")
    assert {value.device.type for value in model.parameters()} == {"meta"}
    assert model.data_preprocessor.device.type == "meta"
    assert get_model(tiny_architecture).data_preprocessor.device.type == "cpu"


@pytest.fixture(scope="module")
def golden_model(
    filled: Callable[..., dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> RIFormer:
    """S12 on golden weights, loaded from a file."""
    path = tmp_path_factory.mktemp("golden") / "s12.pth"
    torch.save({"state_dict": filled(VARIANTS["riformer-s12_in1k"].architecture), "meta": {}}, path)
    return get_model("riformer-s12_in1k", pretrained=str(path))


def test_a_picture_s_classes_are_those_that_mmpretrain_gives(
    golden_model: RIFormer, repository: Path
) -> None:
    picture = repository / "tests" / "data" / "astronaut.png"
    expected = json.loads((repository / "tests" / "data" / "predictions.json").read_text(encoding="utf-8"))
    (known,) = (row for row in expected if row["config"] == "riformer-s12_8xb128_in1k")
    found = inference_model(golden_model, picture)
    assert found["pred_label"] == known["pred_label"]
    assert found["pred_score"] == pytest.approx(known["pred_score"], abs=1e-6)
    assert found["pred_scores"].shape == (1000,)
    assert found["pred_scores"].dtype == np.float32
    assert found["pred_score"] == found["pred_scores"].max()
    assert golden_model.class_names is not None
    assert found["pred_class"] == golden_model.class_names[found["pred_label"]]
    fused = get_model("riformer-s12_in1k")
    fused.load_state_dict(golden_model.state_dict())
    fused.backbone.switch_to_deploy()
    assert inference_model(fused, picture)["pred_score"] == pytest.approx(found["pred_score"], abs=1e-6)


@pytest.fixture
def small_model(tiny_architecture: Architecture, tiny_checkpoint: Path) -> RIFormer:
    preprocessing = Preprocessing(resize_short_edge_px=36, crop_px=(32, 32))
    return get_model(tiny_architecture, tiny_checkpoint, preprocessing=preprocessing)


def test_a_path_an_array_and_a_pil_image_are_the_same_picture(small_model: RIFormer, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path, turned = tmp_path / "a.png", tmp_path / "turned.jpg"
    Image.fromarray(pixels).save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(turned, exif=exif)
    expected = inference_model(small_model, path)["pred_scores"]
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    for same in (str(path), Image.open(path), Image.fromarray(pixels), bgr):
        np.testing.assert_array_equal(inference_model(small_model, same)["pred_scores"], expected)
    np.testing.assert_array_equal(
        inference_model(small_model, Image.open(turned))["pred_scores"],
        inference_model(small_model, turned)["pred_scores"],
    )
    assert not np.allclose(inference_model(small_model, pixels)["pred_scores"], expected)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_list_gives_a_list_in_its_order(small_model: RIFormer, batch_size: int) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]
    found = inference_model(small_model, pictures, batch_size=batch_size)
    assert len(found) == 3
    for picture, answer in zip(pictures, found, strict=True):
        alone = inference_model(small_model, picture)["pred_scores"]
        np.testing.assert_allclose(answer["pred_scores"], alone, atol=1e-6)
    assert inference_model(small_model, []) == []


def test_what_is_no_picture_is_refused_by_what_it_is(small_model: RIFormer, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"got \(40, 50, 3\) float32"):
        inference_model(small_model, np.zeros((40, 50, 3), np.float32))
    with pytest.raises(OptionError, match="got dict"):
        inference_model(small_model, {"img": 1})  # type: ignore[call-overload]  # refused
    with pytest.raises(OptionError, match="batch_size"):
        inference_model(small_model, [], batch_size=0)
    with pytest.raises(ImageError, match=r"gone\.png"):
        inference_model(small_model, tmp_path / "gone.png")


def test_a_model_whose_preprocessing_is_not_known_says_so(
    tiny_architecture: Architecture, tiny_checkpoint: Path
) -> None:
    model = get_model(tiny_architecture, tiny_checkpoint)
    with pytest.raises(OptionError, match="is not known"):
        inference_model(model, np.zeros((40, 50, 3), np.uint8))


def test_a_checkpoint_s_own_pipeline_goes_before_its_name_s(
    published: str, tiny_state: dict[str, Tensor], write_checkpoint: Callable[..., Path]
) -> None:
    config = """
data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=False)
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=24)]
"""
    path = write_checkpoint(tiny_state, meta={"cfg": config})
    known = get_model(published, path).preprocessing
    assert known is not None
    assert (known.resize_short_edge_px, known.crop_px, known.channel_order) == (None, (24, 24), "BGR")
    assert known.mean == (1, 2, 3)


def test_scores_of_the_trained_model_are_mmpretrain_s(
    digits_checkpoint: Path,
    digits_data: dict[str, NDArray[Any]],
    digits_preprocessing: Preprocessing,
    digits_folded: RIFormer,
) -> None:
    model = get_model(digits_folded.architecture, digits_checkpoint, preprocessing=digits_preprocessing)
    digits = list(digits_data["val_images"][:4, ..., ::-1])
    logits = torch.from_numpy(digits_data["val_logits"][:4])
    found = np.stack([answer["pred_scores"] for answer in inference_model(model, digits)])
    np.testing.assert_allclose(found, torch.softmax(logits, 1).numpy(), atol=1e-6)


def test_a_config_file_names_the_model(
    tiny_config: Path, tiny_checkpoint: Path, tiny_architecture: Architecture, tiny_model: RIFormer
) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    model = get_model(tiny_config, tiny_checkpoint)
    assert (model.form, model.architecture) == (Form.TRAINING, tiny_architecture)
    assert torch.equal(model.head.fc.weight, tiny_model.head.fc.weight)
    fused = get_model(str(tiny_config.with_name("tiny-deploy.py")), tiny_checkpoint)
    assert fused.form is Form.DEPLOY
    np.testing.assert_allclose(
        inference_model(model, picture)["pred_scores"],
        inference_model(fused, picture)["pred_scores"],
        atol=1e-6,
    )
    bare = get_model(tiny_config)
    assert bare.preprocessing is not None
    assert (bare.architecture, bare.preprocessing.crop_px) == (tiny_architecture, (48, 48))


def test_the_documented_lines_of_mmpretrain(
    published: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    demo = tmp_path / "demo.JPEG"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(demo)
    model = get_model(published, pretrained=True)
    before = inference_model(model, str(demo))
    model.backbone.switch_to_deploy()
    after = inference_model(model, str(demo))
    assert (before["pred_class"], before["pred_label"]) == (after["pred_class"], after["pred_label"])
    np.testing.assert_allclose(before["pred_scores"], after["pred_scores"], atol=1e-6)

    model = get_model(published, pretrained=True)
    model.eval()
    inputs = torch.rand(1, 3, 32, 32).to(model.data_preprocessor.device)
    out = model(inputs)
    assert out.shape == torch.Size([1, 7])
    outs = model.extract_feat(inputs)
    assert outs[0].shape == torch.Size([1, 32])
    model.backbone.switch_to_deploy()
    assert torch.allclose(out, model(inputs), rtol=1e-4, atol=1e-5)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
