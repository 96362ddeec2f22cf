"""A folded RIFormer rebuilt for one precision: what the graph will hold, as a module that also runs here.

Convolutions, the residual stream and GELU are in the base type of their block; statistics, the affine part
of the norms, pooling and the head are float32, with explicit casts between, so that a strongly typed
builder keeps them there. Norms, their affine part and pooling are in the base type, too, where the plan
says so. Modules have the folded model's names, so that weights keep its keys in the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from riformer_deploy.common.enums import InputForm, MlpForm, Norm2Form, NormForm, OutputForm
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.config import LoweringPlan
from riformer_deploy.export.layers import NormFoldedLayer, PlainLayer
from riformer_deploy.export.norms import Statistics, channel_moments, single_group_norm, statistics, widened
from riformer_deploy.export.quantized_layers import ActivationQuantizer, QuantizedLayer
from riformer_deploy.model.architecture import Architecture
from riformer_deploy.model.blocks import FoldedBlock, PatchEmbed
from riformer_deploy.model.network import LinearHead, RIFormer


def _layer(
    plan: LoweringPlan,
    name: str,
    layer: nn.Conv2d | nn.Linear,
    dtype: torch.dtype,
    *,
    product: bool = False,
) -> nn.Module:
    """A layer of the folded model as the plan wants it."""
    if name in plan.ranges:
        return QuantizedLayer(
            layer, plan.ranges[name], dtype, plan.smoothquant_scales.get(name), plan.target, product=product
        )
    return PlainLayer(layer, dtype, product=product)


class LoweredMlp(nn.Module):
    """The two 1x1 convolutions with GELU between them; nothing else comes between."""

    def __init__(self, block: FoldedBlock, name: str, plan: LoweringPlan) -> None:
        super().__init__()
        dtype = plan.dtype_of(name)
        self.product = plan.mlp is MlpForm.MATMUL
        self.fc1 = (
            NormFoldedLayer(block.mlp.fc1, dtype, product=self.product)
            if plan.norm2 is Norm2Form.FOLDED
            else _layer(plan, f"{name}.mlp.fc1", block.mlp.fc1, dtype, product=self.product)
        )
        self.act = nn.GELU()
        self.fc2 = _layer(plan, f"{name}.mlp.fc2", block.mlp.fc2, dtype, product=self.product)

    def forward(self, x: Tensor, known: Statistics | None = None) -> Tensor:
        """Transform ``x`` (N, C, H, W); the shape stays.

        Args:
            x: What the norm gives, or what it takes where it is folded into fc1.
            known: The statistics of ``x``, where the norm is folded into fc1.
        """
        taken = x.flatten(2).transpose(1, 2) if self.product else x
        statistics_of_x = () if known is None else (known.mean, known.inverse_deviation)
        result: Tensor = self.fc2(self.act(self.fc1(taken, *statistics_of_x)))
        return result.transpose(1, 2).reshape(-1, *x.shape[1:]) if self.product else result


class NormWeights(nn.Module):
    """What a norm multiplies its channels with and adds to them, float32, under the norm's own key.

    Args:
        norm: Of the folded model.
        shape: With which both broadcast over what they are applied to.
    """

    def __init__(self, norm: nn.GroupNorm, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().reshape(shape))
        self.register_buffer("bias", norm.bias.detach().reshape(shape))

    def in_type(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight and bias in a type."""
        return self.get_buffer("weight").to(dtype), self.get_buffer("bias").to(dtype)


def _narrow_norms(plan: LoweringPlan) -> bool:
    """Whether norms are in the type of their block."""
    return plan.norm_io is not torch.float32


class LoweredBlock(nn.Module):
    """A folded block: ``y = x + norm_reparam(x)``, then ``y + mlp(n(y))``."""

    def __init__(self, block: FoldedBlock, name: str, plan: LoweringPlan) -> None:
        super().__init__()
        self.dtype, self.norm = plan.dtype_of(name), plan.norm
        self.narrow, self.folded = _narrow_norms(plan), plan.norm2 is Norm2Form.FOLDED
        self.norm_reparam = NormWeights(block.norm_reparam, (1, -1, 1, 1))
        self.mlp = LoweredMlp(block, name, plan)
        ranges = plan.residual_ranges
        self.stream, self.branch = (
            ActivationQuantizer(ranges[place], self.dtype) if place in ranges else nn.Identity()
            for place in (f"{name}.stream", f"{name}.branch")
        )

    def mixed(self, x: Tensor) -> tuple[Tensor, Statistics | None]:
        """``y``, in the type of ``x``, and its statistics where they follow from those of ``x``."""
        weight, bias = self.norm_reparam.in_type(x.dtype)
        if self.norm is not NormForm.MOMENTS:
            return x + (single_group_norm(x, self.norm) * weight + bias), None
        # Per sample and channel, y is a multiple of x plus a constant, and so is n(y).
        moments = channel_moments(x)
        gain = weight * moments.inverse_deviation
        offset = bias - gain * moments.overall_mean
        return x * (1 + gain) + offset, moments.scaled(1 + gain, offset).overall()

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, C, H, W); the shape stays, the type becomes the block's."""
        y, known = self.mixed(x.to(self.dtype) if self.narrow else widened(x))
        stored = y.to(self.dtype)
        if self.folded:
            # Of the map as fc1 takes it, so that its rounding shifts product and mean alike; but those known
            # from the moments of x are of the map before that rounding: they spare reading it once more.
            branch = self.mlp(stored, known or statistics(widened(stored)))
        else:
            z = single_group_norm(y, self.norm) if known is None else known.normalised(y)
            branch = self.mlp(z.to(self.dtype))
        result: Tensor = self.stream(stored) + self.branch(branch)
        return result


class LoweredPatchEmbed(nn.Module):
    """A strided convolution in the plan's type."""

    def __init__(self, embed: PatchEmbed, name: str, plan: LoweringPlan) -> None:
        super().__init__()
        self.proj = _layer(plan, f"{name}.proj", embed.proj, plan.dtype_of(f"{name}.proj"))

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``x``."""
        result: Tensor = self.proj(x)
        return result


class LoweredBackbone(nn.Module):
    """Stem, stages and final norm, under the names that the folded model has."""

    def __init__(self, model: RIFormer, plan: LoweringPlan) -> None:
        super().__init__()
        source = model.backbone
        self.norm, self.narrow = plan.norm, _narrow_norms(plan)
        self.patch_embed = LoweredPatchEmbed(source.patch_embed, "backbone.patch_embed", plan)
        network: list[nn.Module] = []
        for index, module in enumerate(source.network):
            name = f"backbone.network.{index}"
            if isinstance(module, PatchEmbed):
                network.append(LoweredPatchEmbed(module, name, plan))
            else:
                blocks = (b for b in module.children() if isinstance(b, FoldedBlock))
                network.append(
                    nn.Sequential(*(LoweredBlock(b, f"{name}.{i}", plan) for i, b in enumerate(blocks)))
                )
        self.network = nn.ModuleList(network)
        self.norm6 = NormWeights(source.norm6, (-1,))

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (N, dim), float32 or float64; the norm's affine part follows the pooling."""
        x = self.patch_embed(images)
        for module in self.network:
            x = module(x)
        pooled = widened(single_group_norm(x if self.narrow else widened(x), self.norm).mean((2, 3)))
        weight, bias = self.norm6.in_type(pooled.dtype)
        return pooled * weight + bias


class LoweredHead(nn.Module):
    """The classifier, in float32 where the base is narrower."""

    def __init__(self, head: LinearHead, plan: LoweringPlan) -> None:
        super().__init__()
        self.fc = _layer(plan, "head.fc", head.fc, torch.float32 if plan.base.itemsize < 4 else plan.base)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of pooled features (N, dim)."""
        result: Tensor = self.fc(features)
        return result


class LoweredRIFormer(nn.Module):
    """The whole network for one precision, from the graph's input to its outputs.

    Args:
        model: In folded form, float32 or float64.
        plan: How to rebuild it.
        preprocessing: The normalisation, where the plan's input is uint8.
    """

    def __init__(self, model: RIFormer, plan: LoweringPlan, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.architecture: Architecture = model.architecture
        self.plan = plan
        self.backbone = LoweredBackbone(model, plan)
        self.head = LoweredHead(model.head, plan)
        self.flipped = preprocessing.channel_order == "BGR"
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        return (
            ("scores", "labels")
            if self.plan.output_form is OutputForm.TOPK
            else (str(self.plan.output_form),)
        )

    def _normalised(self, images: Tensor) -> Tensor:
        if self.plan.input_form is InputForm.NORMALISED:
            return images
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        if self.flipped:
            pixels = pixels.flip(1)
        return (pixels - self.get_buffer("mean")) / self.get_buffer("std")

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The outputs that the plan asks for, of images in the form that it asks for."""
        plan = self.plan
        features: Tensor = self.backbone(self._normalised(images))
        if plan.output_form is OutputForm.FEATURES:
            return features.to(plan.io)
        logits = widened(self.head(features))
        if plan.output_form is OutputForm.LOGITS:
            return logits.to(plan.io)
        probabilities = torch.softmax(logits, 1)
        if plan.output_form is OutputForm.PROBABILITIES:
            return probabilities.to(plan.io)
        scores, labels = torch.topk(probabilities, plan.topk, dim=1)
        return scores.to(plan.io), labels


def lower(model: RIFormer, plan: LoweringPlan, preprocessing: Preprocessing) -> LoweredRIFormer:
    """Rebuild a folded model for one precision.

    Args:
        model: In folded form; stays as it was.
        plan: How.
        preprocessing: The model's.
    """
    return LoweredRIFormer(model, plan, preprocessing).eval().requires_grad_(requires_grad=False)
