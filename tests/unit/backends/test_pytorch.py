from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch.fx import GraphModule

from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.model.network import RIFormer

BLOCK = "backbone.network.4.1"


class Broken(nn.Module):
    """A model whose forward raises."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        raise ValueError(f"no kernel for {tuple(images.shape)}\nand a second line")


class Warns(nn.Module):
    """A model that warns, as inductor does of TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        warnings.warn("TF32 is not enabled", UserWarning, stacklevel=1)
        return images.flatten(1)


def _small(width: int = 4) -> nn.Module:
    """A model that PyTorch traces quickly."""
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten()).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_the_models_own_in_its_own_type(tiny_model: RIFormer, dtype: torch.dtype) -> None:
    model = tiny_model.to(dtype)
    images = synthetic_images(3, (48, 64), seed=1)
    logits = PyTorchRuntime(model).run(images)["logits"]
    assert logits.dtype == np.dtype(str(dtype).removeprefix("torch."))
    np.testing.assert_array_equal(logits, model(torch.from_numpy(images).to(dtype)).numpy())


def test_taps_are_the_activations_after_the_named_blocks(tiny_model: RIFormer) -> None:
    images = synthetic_images(2, (48, 64), seed=1)
    taken: list[Tensor] = []
    block = tiny_model.get_submodule(BLOCK)
    handle = block.register_forward_hook(lambda _module, _inputs, output: taken.append(output))
    tiny_model(torch.from_numpy(images))
    handle.remove()
    found = PyTorchRuntime(tiny_model).tap(images, [BLOCK, "backbone.network.0.0"])
    assert list(found) == [BLOCK, "backbone.network.0.0"]
    np.testing.assert_array_equal(found[BLOCK], taken[0].numpy())
    assert found["backbone.network.0.0"].shape == (2, 8, 12, 16)


def test_tapping_leaves_no_hook_behind(tiny_model: RIFormer) -> None:
    runtime = PyTorchRuntime(tiny_model)
    images = synthetic_images(1, (32, 32), seed=1)
    before = runtime.run(images)["logits"]
    first = runtime.tap(images, [BLOCK])[BLOCK]
    np.testing.assert_array_equal(runtime.tap(images, [BLOCK])[BLOCK], first)
    np.testing.assert_array_equal(runtime.run(images)["logits"], before)
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_unknown_blocks_are_all_named(tiny_model: RIFormer) -> None:
    with pytest.raises(RuntimeFailureError) as caught:
        PyTorchRuntime(tiny_model).tap(synthetic_images(1, (32, 32), seed=1), ["no.such", BLOCK, "nor.this"])
    assert caught.value.details == ("no.such", "nor.this")


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32), (1, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("tapped", [False, True], ids=["run", "tap"])
def test_images_of_a_wrong_shape_are_a_runtime_failure(
    tiny_model: RIFormer, shape: tuple[int, ...], *, tapped: bool
) -> None:
    runtime = PyTorchRuntime(tiny_model)
    images = np.zeros(shape, dtype=np.float32)
    with pytest.raises(RuntimeFailureError, match="could not run the model"):
        runtime.tap(images, [BLOCK]) if tapped else runtime.run(images)
    assert not any(module._forward_hooks for module in tiny_model.modules())


@pytest.mark.parametrize("tapped", [False, True], ids=["run", "tap"])
def test_whatever_a_model_raises_is_a_runtime_failure_in_one_line(*, tapped: bool) -> None:
    runtime = PyTorchRuntime(Broken())
    images = np.zeros((1, 3, 8, 8), dtype=np.float32)
    with pytest.raises(RuntimeFailureError) as caught:
        runtime.tap(images, ["layer"]) if tapped else runtime.run(images)
    assert caught.value.message.endswith("ValueError: no kernel for (1, 3, 8, 8)")


def test_a_model_that_cannot_be_compiled_is_a_runtime_failure() -> None:
    with pytest.raises(RuntimeFailureError, match="could not run the model"):
        PyTorchRuntime(Broken(), compiled=True).run(np.zeros((1, 3, 8, 8), dtype=np.float32))


def test_a_machine_where_nothing_can_be_compiled_is_a_runtime_failure(
    tiny_model: RIFormer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(RuntimeFailureError, match=r"not supported on Python 3\.99"):
        PyTorchRuntime(tiny_model, compiled=True).run(synthetic_images(1, (32, 32), seed=1))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.untraced
def test_a_compiled_model_scores_as_the_eager_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = synthetic_images(2, (8, 8), seed=1)
    compiled = PyTorchRuntime(model, compiled=True)
    expected = PyTorchRuntime(model).run(images)["logits"]
    np.testing.assert_allclose(compiled.run(images)["logits"], expected, rtol=1e-4, atol=1e-6)
    assert compiled.tap(images, ["1"])["1"].shape == (2, 4, 6, 6)


def test_threads_are_set_where_they_are_asked_for_until_the_last_who_asked_is_closed(
    tiny_model: RIFormer,
) -> None:
    found = torch.get_num_threads()
    first, other = PyTorchRuntime(tiny_model, threads=found + 2), PyTorchRuntime(tiny_model)
    assert torch.get_num_threads() == found + 2
    second = PyTorchRuntime(tiny_model, threads=found + 1)
    for runtime in (first, first, other):
        runtime.close()
        assert torch.get_num_threads() == found + 1
    second.close()
    assert torch.get_num_threads() == found


@pytest.mark.parametrize("tapped", [False, True], ids=["run", "tap"])
def test_a_closed_runtime_gives_an_error_and_never_an_answer(tiny_model: RIFormer, *, tapped: bool) -> None:
    runtime = PyTorchRuntime(tiny_model)
    runtime.close()
    images = synthetic_images(1, (32, 32), seed=1)
    with pytest.raises(RuntimeFailureError):
        runtime.tap(images, [BLOCK]) if tapped else runtime.run(images)


@pytest.fixture(name="graphs")
def fixture_graphs(monkeypatch: pytest.MonkeyPatch) -> list[GraphModule]:
    """Every graph that PyTorch compiles, which is quick here: nothing is made of it."""
    found: list[GraphModule] = []
    real = torch.compile

    def keep(graph: GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **options: real(model, backend=keep, **options))
    return found


@pytest.mark.slow
def test_ten_batches_in_a_row_are_really_compiled(tiny_model: RIFormer, graphs: list[GraphModule]) -> None:
    images = synthetic_images(10, (32, 32), seed=1)
    with torch._dynamo.config.patch(recompile_limit=2):
        for batch in range(1, 11):
            runtime = PyTorchRuntime(tiny_model, compiled=True)
            runtime.run(images[:batch])
            runtime.close()
            assert len(graphs) == batch


def test_a_shape_is_compiled_once_however_often_it_is_run(graphs: list[GraphModule]) -> None:
    images, model = synthetic_images(2, (8, 8), seed=1), _small()
    first, second = (PyTorchRuntime(model, compiled=True) for _ in range(2))
    for _ in range(6):  # a second open runtime, and the end of the first calls, change Dynamo's limit
        first.run(images)
        second.run(images)
    assert len(graphs) == 1  # of the same module, by the same compiler


@pytest.mark.untraced
def test_every_open_runtime_may_compile_as_often_as_one(graphs: list[GraphModule]) -> None:
    images = synthetic_images(2, (8, 8), seed=1)
    models = [_small(width) for width in range(1, 6)]
    runtimes = [PyTorchRuntime(model, compiled=True) for model in models]
    with torch._dynamo.config.patch(recompile_limit=2):
        for runtime in runtimes:
            for batch in (1, 2):
                runtime.run(images[:batch])
    assert len(graphs) == len(runtimes) * 2


@pytest.mark.parametrize("calls", [1, 3])
def test_what_pytorch_warns_of_when_it_compiles_is_no_failure_of_the_model(calls: int) -> None:
    model = Warns()
    runtime = PyTorchRuntime(model)
    images = np.zeros((1, 3, 8, 8), dtype=np.float32)
    with pytest.raises(RuntimeFailureError, match="UserWarning: TF32"):  # as an error, eager
        runtime.run(images)
    compiled = PyTorchRuntime(model, compiled=True)
    compiled._forward = compiled._eager  # what it compiled to warns as the module does
    for _ in range(calls):
        compiled.run(images)


def test_a_batch_that_pytorch_will_not_compile_any_more_fails_and_is_not_run_eagerly(
    graphs: list[GraphModule],
) -> None:
    images = synthetic_images(3, (8, 8), seed=1)
    runtime = PyTorchRuntime(_small(), compiled=True)
    with torch._dynamo.config.patch(recompile_limit=2):
        for batch in (1, 2):
            runtime.run(images[:batch])
        with pytest.raises(RuntimeFailureError, match="could not run the model"):
            runtime.run(images)
    assert len(graphs) == 2
