from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.reparameterize import fold


@pytest.fixture(scope="module")
def path(tiny_bundle: Path) -> Path:
    return next(tiny_bundle.glob("*.onnx"))


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_one_file_takes_every_batch_and_scores_as_pytorch(
    path: Path, tiny_checkpoint: Path, batch: int
) -> None:
    images = synthetic_images(batch, (64, 48), seed=2)
    found = OnnxRuntime(path).run(images)
    assert list(found) == ["logits"]
    assert found["logits"].dtype == np.float32
    expected = PyTorchRuntime(model_of(tiny_checkpoint)).run(images)["logits"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)


def test_giving_memory_back_between_runs_changes_no_bit(path: Path) -> None:
    kept, given_back = OnnxRuntime(path), OnnxRuntime(path, keep_memory=False)
    for batch in (8, 1, 8):
        images = synthetic_images(batch, (64, 48), seed=2)
        np.testing.assert_array_equal(given_back.run(images)["logits"], kept.run(images)["logits"])


def test_taps_are_what_pytorchs_hooks_see(
    path: Path, tiny_checkpoint: Path, tiny_architecture: Architecture
) -> None:
    blocks = [name for stage in tiny_architecture.block_names for name in stage]
    images = synthetic_images(2, (64, 48), seed=2)
    found = OnnxRuntime(path).tap(images, blocks)
    expected = PyTorchRuntime(fold(model_of(tiny_checkpoint))).tap(images, blocks)
    assert list(found) == blocks
    for name in blocks:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.ptp(found[name]) > 0.1


def test_another_tap_asks_another_question(path: Path) -> None:
    runtime = OnnxRuntime(path)
    images = synthetic_images(1, (64, 48), seed=2)
    first = runtime.tap(images, ["backbone.network.4.0"])
    second = runtime.tap(images, ["backbone.network.4.1"])
    assert list(second) == ["backbone.network.4.1"]
    assert not np.array_equal(first["backbone.network.4.0"], second["backbone.network.4.1"])
    np.testing.assert_array_equal(
        runtime.tap(images, ["backbone.network.4.0"])["backbone.network.4.0"], first["backbone.network.4.0"]
    )


def test_unknown_tensors_are_all_named(path: Path) -> None:
    with pytest.raises(RuntimeFailureError) as caught:
        OnnxRuntime(path).tap(
            synthetic_images(1, (64, 48), seed=2), ["nope", "backbone.network.0.0", "neither"]
        )
    assert caught.value.details == ("nope", "neither")
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 48, 64), dtype=np.float32),
        np.zeros((1, 4, 64, 48), dtype=np.float32),
        np.zeros((3, 64, 48), dtype=np.float32),
        np.zeros((1, 3, 64, 48), dtype=np.float64),
    ],
    ids=["turned", "channels", "no batch", "float64"],
)
@pytest.mark.parametrize("tapped", [False, True], ids=["run", "tap"])
def test_images_that_the_graph_does_not_take_are_a_runtime_failure(
    path: Path, images: np.ndarray, *, tapped: bool
) -> None:
    runtime = OnnxRuntime(path)
    with pytest.raises(RuntimeFailureError, match="cannot run"):
        runtime.tap(images, ["backbone.network.0.0"]) if tapped else runtime.run(images)


def _absent(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_absent, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b""), "cannot load"),
        (lambda path: path.write_text("not a graph"), "cannot load"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot load"),
    ],
    ids=["absent", "empty", "text", "cut"],
)
def test_a_file_that_is_no_onnx_graph_is_a_runtime_failure(
    tiny_bundle_copy: Path, onnx_of: Callable[[Path], Path], damage: Callable[[Path], object], said: str
) -> None:
    path = onnx_of(tiny_bundle_copy)
    damage(path)
    with pytest.raises(RuntimeFailureError, match=said):
        OnnxRuntime(path)


@pytest.mark.parametrize("damage", [_absent, lambda path: path.write_text("not a graph")])
def test_a_file_that_is_gone_or_changed_when_it_is_tapped_is_a_runtime_failure(
    tiny_bundle_copy: Path, onnx_of: Callable[[Path], Path], damage: Callable[[Path], object]
) -> None:
    path = onnx_of(tiny_bundle_copy)
    runtime = OnnxRuntime(path)
    damage(path)
    with pytest.raises(RuntimeFailureError):
        runtime.tap(synthetic_images(1, (64, 48), seed=2), ["backbone.network.0.0"])


def test_threads_change_nothing_in_the_answer(path: Path) -> None:
    images = synthetic_images(2, (64, 48), seed=2)
    one, two = (OnnxRuntime(path, threads=count).run(images)["logits"] for count in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tapped", [False, True], ids=["run", "tap"])
def test_a_closed_runtime_gives_an_error_and_never_an_answer(path: Path, *, tapped: bool) -> None:
    runtime = OnnxRuntime(path)
    images = synthetic_images(1, (64, 48), seed=2)
    runtime.tap(images, ["backbone.network.0.0"])
    runtime.close()
    with pytest.raises(RuntimeFailureError):
        runtime.tap(images, ["backbone.network.0.0"]) if tapped else runtime.run(images)
