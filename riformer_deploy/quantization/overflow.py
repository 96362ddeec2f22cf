"""Largest absolute values of everything that half precision would have to store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from riformer_deploy.model.blocks import FoldedBlock
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.observers import BatchSource, largest_inputs


def _watch_products(model: RIFormer, see: Callable[[str, Tensor], None]) -> list[RemovableHandle]:
    """Show fc1's product with what ``norm2`` takes, of every block, whenever the model runs."""

    def watch(name: str, block: FoldedBlock) -> RemovableHandle:
        def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            see(f"{name}.mlp.fc1.product", functional.conv2d(inputs[0], block.mlp.fc1.weight))

        return block.norm2.register_forward_pre_hook(before)

    return [watch(name, block) for name, block in model.named_modules() if isinstance(block, FoldedBlock)]


def _watch_branches(model: RIFormer, see: Callable[[str, Tensor], None]) -> list[RemovableHandle]:
    """Show what ``norm_reparam`` gives, without its bias and with it, of every block, on every run."""

    def watch(name: str, block: FoldedBlock) -> RemovableHandle:
        bias = block.norm_reparam.bias.reshape(1, -1, 1, 1)

        def after(_module: nn.Module, _inputs: object, result: Tensor) -> None:
            see(f"{name}.norm_reparam.product", result - bias)
            see(f"{name}.norm_reparam", result)

        return block.norm_reparam.register_forward_hook(after)

    return [watch(name, block) for name, block in model.named_modules() if isinstance(block, FoldedBlock)]


def measure_abs_max(
    model: RIFormer,
    batches: BatchSource,
    names: Iterable[str],
    *,
    products: bool = False,
    branches: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Largest absolute values, in one pass: of what half precision would store, and of layers' inputs.

    Args:
        model: In folded form.
        batches: The images.
        names: Layers whose inputs are looked at channel by channel.
        products: Look at fc1's product with what ``norm2`` takes, too: ``<block>.mlp.fc1.product``.
        branches: Look at ``norm_reparam``'s result without its bias and with it, too:
            ``<block>.norm_reparam.product`` and ``<block>.norm_reparam``.

    Returns:
        By name of the value, ``<block>`` and the inputs (``<layer>.input``) and results of every layer,
        0-dimensional; and for each of ``names`` (in_channels,). Infinity or NaN where one was seen.
    """
    abs_max: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        top = value.detach().abs().max()
        abs_max[name] = torch.maximum(abs_max[name], top) if name in abs_max else top

    def watch(name: str, module: nn.Module) -> list[RemovableHandle]:
        def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            see(f"{name}.input", inputs[0])

        def after(_module: nn.Module, _inputs: object, result: Tensor) -> None:
            see(name, result)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, FoldedBlock)) or name.endswith(".norm2"):
            handles += watch(name, module)
    if products:
        handles += _watch_products(model, see)
    if branches:
        handles += _watch_branches(model, see)
    try:
        largest = largest_inputs(model, names, batches)
    finally:
        for handle in handles:
            handle.remove()
    return abs_max, largest


def block_abs_max(abs_max: Mapping[str, Tensor], blocks: Iterable[str]) -> dict[str, float]:
    """The largest absolute value within each block, and of each layer outside blocks.

    Args:
        abs_max: By name of the value.
        blocks: Names of the blocks.
    """
    found: dict[str, float] = {}
    owners = tuple(blocks)
    for name, value in abs_max.items():
        place = re.sub(r"\.(input|weights|equalized)$", "", name)
        owner = next((block for block in owners if place == block or place.startswith(f"{block}.")), place)
        top, before = float(value), found.get(owner, 0.0)
        found[owner] = max(before, top)  # NaN takes the place, too
    return found


def weight_abs_max(model: RIFormer) -> dict[str, Tensor]:
    """Largest absolute weight or bias of convolutions and of norms with weights: half may store these too."""
    return {
        f"{name}.weights": torch.stack([value.abs().max() for value in layer.parameters()]).max()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) or name.endswith(".norm_reparam")
    }
