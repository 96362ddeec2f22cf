"""The trained example, end to end: every form of it scores what mmpretrain's own model scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold, fuse

Data = dict[str, NDArray[Any]]


def _compare(logits: NDArray[Any], data: Data) -> None:
    assert f"{100 * float((logits.argmax(1) == data['val_labels']).mean()):.3f}" == "95.466"
    for name in ("val_logits", "val_logits_deploy"):
        np.testing.assert_allclose(logits, data[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("change", [lambda model: model, fuse, fold], ids=["training", "fused", "folded"])
@pytest.mark.untraced
def test_every_form_scores_as_trained(
    digits_checkpoint: Path,
    digits_inputs: NDArray[np.float32],
    digits_data: Data,
    change: Callable[[RIFormer], RIFormer],
) -> None:
    _compare(PyTorchRuntime(change(model_of(digits_checkpoint))).run(digits_inputs)["logits"], digits_data)


def test_the_exported_graph_scores_as_trained(
    digits_bundle: Path,
    digits_inputs: NDArray[np.float32],
    digits_data: Data,
    onnx_of: Callable[[Path], Path],
) -> None:
    _compare(OnnxRuntime(onnx_of(digits_bundle)).run(digits_inputs)["logits"], digits_data)


@pytest.mark.untraced
def test_the_bundles_own_weights_files_score_as_trained(
    digits_bundle: Path, digits_inputs: NDArray[np.float32], digits_data: Data
) -> None:
    for name in ("training.pth", "deploy.pth"):
        stored = torch.load(digits_bundle / name, weights_only=True)
        assert stored["meta"]["dataset_meta"]["classes"] == [str(digit) for digit in range(10)]
        _compare(PyTorchRuntime(model_of(digits_bundle / name)).run(digits_inputs)["logits"], digits_data)
