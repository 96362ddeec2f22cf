from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.model.network import RIFormer

BLOCKS = ("backbone.network.0.0", "backbone.network.6.1")


def _error(found: NDArray[np.floating], true: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - true) / np.linalg.norm(true))


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 2e-2)])
@pytest.mark.untraced
def test_outputs_and_blocks_are_those_of_onnx_runtime(
    precise_bundle: Path, digits_inputs: NDArray[np.float32], precision: str, limit: float
) -> None:
    path, images = precise_bundle / f"model.{precision}.onnx", digits_inputs[:4]
    ours, theirs = OpenVinoRuntime(path, threads=1), OnnxRuntime(path)
    assert _error(ours.run(images)["logits"], theirs.run(images)["logits"]) < limit
    found, true = ours.tap(images, BLOCKS), theirs.tap(images, BLOCKS)
    assert all(_error(found[name], true[name].astype(np.float32)) < limit for name in BLOCKS)
    for batch in (1, 3):
        assert ours.run(images[:batch])["logits"].shape == (batch, 10)


def test_float8_is_within_its_tolerance(
    fp8_bundle: Path, digits_inputs: NDArray[np.float32], digits_reference: NDArray[np.float64]
) -> None:
    runtime = OpenVinoRuntime(fp8_bundle / "model.fp8.onnx", threads=1)
    found = runtime.run(digits_inputs[:32])["logits"]
    assert _error(found, digits_reference[:32]) < 10 ** (-35 / 20)


@pytest.mark.slow
def test_bfloat16_is_read_as_bfloat16(
    tmp_path: Path,
    digits_folded: RIFormer,
    digits_preprocessing: Preprocessing,
    digits_inputs: NDArray[np.float32],
    digits_reference: NDArray[np.float64],
) -> None:
    model = lower(digits_folded, LoweringConfig(precision=Precision.BF16), digits_preprocessing)
    export_onnx(model, tmp_path / "model.onnx", OnnxOptions(image_size_px=(64, 64), opset=22), {})
    runtime, images = OpenVinoRuntime(tmp_path / "model.onnx"), digits_inputs[:32]
    assert _error(runtime.run(images)["logits"], digits_reference[:32]) < 10 ** (-38 / 20)
    seen: list[torch.Tensor] = []
    model.get_submodule(BLOCKS[0]).register_forward_hook(lambda _m, _i, out: seen.append(out.float()))
    model(torch.from_numpy(images[:2]))
    assert _error(runtime.tap(images[:2], BLOCKS[:1])[BLOCKS[0]], seen[0].numpy()) < 2e-2


@pytest.mark.parametrize(
    "images", [np.zeros((1, 3, 64, 64), np.float64), np.zeros((1, 3, 32, 64), np.float32)]
)
def test_images_that_the_graph_does_not_take_are_a_runtime_failure(
    precise_bundle: Path, images: NDArray[np.float32]
) -> None:
    with pytest.raises(RuntimeFailureError):
        OpenVinoRuntime(precise_bundle / "model.fp32.onnx").run(images)


def test_a_file_that_is_none_and_an_unknown_block_are_runtime_failures(
    tmp_path: Path, precise_bundle: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(RuntimeFailureError, match="OpenVINO cannot load"):
        OpenVinoRuntime(tmp_path / "model.onnx")
    with pytest.raises(RuntimeFailureError):
        OpenVinoRuntime(precise_bundle / "model.fp32.onnx").tap(
            np.zeros((1, 3, 64, 64), np.float32), ["no.block"]
        )


def test_a_closed_runtime_says_so(precise_bundle: Path) -> None:
    runtime, images = (
        OpenVinoRuntime(precise_bundle / "model.fp32.onnx"),
        np.zeros((1, 3, 64, 64), np.float32),
    )
    runtime.close()
    with pytest.raises(RuntimeFailureError, match="was closed"):
        runtime.run(images)
    with pytest.raises(RuntimeFailureError, match="was closed"):
        runtime.tap(images, BLOCKS)
