"""A folded RIFormer rebuilt for one precision: what the graph will hold, as a module that also runs here.

Convolutions, the residual stream and GELU are in the base type of their block; statistics, the affine part
of the norms, pooling and the head are float32, with explicit casts between, so that a strongly typed
builder keeps them there. Norms, their affine part and pooling are in the base type, too, where the config
says so. Modules have the folded model's names, so that weights keep its keys in the graph.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import InputForm, MlpForm, Norm2Form, NormForm, OutputForm, Precision
from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.export.config_layers import config_layer, layer_dtype
from riformer_deploy.export.layers import NormFoldedLayer
from riformer_deploy.export.norms import Statistics, channel_moments, single_group_norm, statistics, widened
from riformer_deploy.export.quantized_layers import ActivationQuantizer
from riformer_deploy.model.architecture import Architecture, map_name
from riformer_deploy.model.blocks import FoldedBlock, PatchEmbed
from riformer_deploy.model.network import LinearHead, RIFormer


class LoweredMlp(nn.Module):
    """The two 1x1 convolutions with GELU between them; nothing else comes between."""

    def __init__(self, block: FoldedBlock, name: str, config: LoweringConfig) -> None:
        super().__init__()
        dtype = layer_dtype(config.precision_of(name), block.mlp.fc1)
        self.product = config.mlp is MlpForm.MATMUL
        self.fc1 = (
            NormFoldedLayer(block.mlp.fc1, dtype, product=self.product)
            if config.norm2 is Norm2Form.FOLDED
            else config_layer(config, f"{name}.mlp.fc1", block.mlp.fc1, dtype, product=self.product)
        )
        self.act = nn.GELU()
        self.fc2 = config_layer(config, f"{name}.mlp.fc2", block.mlp.fc2, dtype, product=self.product)

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


def _narrow_norms(config: LoweringConfig) -> bool:
    """Whether norms are in the type of their block."""
    return config.norm_io is not Precision.FP32


def _stored(config: LoweringConfig, place: str, dtype: torch.dtype) -> nn.Module:
    """What rounds a tensor of the residual stream to int8 where the config has a range for it."""
    ranges = config.residual_ranges
    return ActivationQuantizer(ranges[place], dtype) if place in ranges else nn.Identity()


class LoweredBlock(nn.Module):
    """A folded block: ``y = x + norm_reparam(x)``, then ``y + mlp(n(y))``."""

    def __init__(self, block: FoldedBlock, name: str, config: LoweringConfig) -> None:
        super().__init__()
        self.dtype, self.norm = layer_dtype(config.precision_of(name), block.mlp.fc1), config.norm
        self.narrow, self.folded = _narrow_norms(config), config.norm2 is Norm2Form.FOLDED
        self.norm_reparam = NormWeights(block.norm_reparam, (1, -1, 1, 1))
        self.mlp = LoweredMlp(block, name, config)
        self.stream, self.branch, self.result = (
            _stored(config, f"{name}.{place}", self.dtype) for place in ("stream", "branch", "result")
        )
        self.results = isinstance(self.result, ActivationQuantizer)

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
        if self.results:  # norm2 reads what is stored
            stored = self.stream(stored)
            y = stored if self.narrow else widened(stored)
        if self.folded:
            # Of the map as fc1 takes it, so that its rounding shifts product and mean alike; but those known
            # from the moments of x are of the map before that rounding: they spare reading it once more.
            branch = self.mlp(stored, known or statistics(widened(stored)))
        else:
            z = single_group_norm(y, self.norm) if known is None else known.normalised(y)
            branch = self.mlp(z.to(self.dtype))
        result: Tensor = self.result((stored if self.results else self.stream(stored)) + self.branch(branch))
        return result


class LoweredPatchEmbed(nn.Module):
    """A strided convolution in the config's type."""

    def __init__(self, embed: PatchEmbed, name: str, config: LoweringConfig) -> None:
        super().__init__()
        dtype = layer_dtype(config.precision_of(f"{name}.proj"), embed.proj)
        self.proj = config_layer(config, f"{name}.proj", embed.proj, dtype)
        self.result = _stored(config, f"{name}.result", dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``x``."""
        result: Tensor = self.result(self.proj(x))
        return result


class LoweredBackbone(nn.Module):
    """Stem, stages and final norm, or norms of maps, under the names that the folded model has."""

    def __init__(self, model: RIFormer, config: LoweringConfig) -> None:
        super().__init__()
        source = model.backbone
        self.norm, self.narrow = config.norm, _narrow_norms(config)
        self.patch_embed = LoweredPatchEmbed(source.patch_embed, "backbone.patch_embed", config)
        network: list[nn.Module] = []
        for index, module in enumerate(source.network):
            name = f"backbone.network.{index}"
            if isinstance(module, PatchEmbed):
                network.append(LoweredPatchEmbed(module, name, config))
            else:
                blocks = (b for b in module.children() if isinstance(b, FoldedBlock))
                network.append(
                    nn.Sequential(*(LoweredBlock(b, f"{name}.{i}", config) for i, b in enumerate(blocks)))
                )
        self.network = nn.ModuleList(network)
        self.out_indices = config.out_indices
        if not config.out_indices:
            self.norm6 = NormWeights(source.norm6, (-1,))
        for index in config.out_indices:
            norm: nn.GroupNorm = getattr(source, f"norm{index}")
            self.add_module(f"norm{index}", NormWeights(norm, (1, -1, 1, 1)))

    def _normalised(self, x: Tensor) -> Tensor:
        return single_group_norm(x if self.narrow else widened(x), self.norm)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The map of each of the config's ``out_indices``, (N, dim, H, W), float32 or float64."""
        x, given = self.patch_embed(images), []
        for index, module in enumerate(self.network):
            x = module(x)
            if index in self.out_indices:
                norm: NormWeights = getattr(self, f"norm{index}")
                normalised = widened(self._normalised(x))
                weight, bias = norm.in_type(normalised.dtype)
                given.append(normalised * weight + bias)
        return tuple(given)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features (N, dim), float32 or float64; the norm's affine part follows the pooling."""
        x = self.patch_embed(images)
        for module in self.network:
            x = module(x)
        pooled = widened(self._normalised(x).mean((2, 3)))
        weight, bias = self.norm6.in_type(pooled.dtype)
        return pooled * weight + bias


class LoweredHead(nn.Module):
    """The classifier, in float32 whatever the base."""

    def __init__(self, head: LinearHead, config: LoweringConfig) -> None:
        super().__init__()
        self.fc = config_layer(config, "head.fc", head.fc, layer_dtype(Precision.FP32, head.fc))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of pooled features (N, dim)."""
        result: Tensor = self.fc(features)
        return result


class LoweredRIFormer(nn.Module):
    """The whole network for one precision, from the graph's input to its outputs.

    Args:
        model: In folded form, float32 or float64.
        config: How to rebuild it.
        preprocessing: The normalisation, where the input is uint8.
    """

    def __init__(self, model: RIFormer, config: LoweringConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.architecture: Architecture = model.architecture
        self.config = config
        self.io_dtype = layer_dtype(config.io, model.head.fc)
        self.backbone = LoweredBackbone(model, config)
        self.head = LoweredHead(model.head, config)
        self.flipped = preprocessing.channel_order == "BGR"
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, 3, 1, 1))

    @property
    def input_dtype(self) -> torch.dtype:
        """Type of the images that it takes."""
        return torch.uint8 if self.config.input_form is InputForm.UINT8 else self.io_dtype

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in order."""
        match self.config.output_form:
            case OutputForm.TOPK:
                return ("scores", "labels")
            case OutputForm.MAPS:
                return tuple(map(map_name, self.config.out_indices))
            case OutputForm.LOGITS | OutputForm.PROBABILITIES | OutputForm.FEATURES as form:
                return (str(form),)
            case form:
                assert_never(form)

    def _normalised(self, images: Tensor) -> Tensor:
        if self.config.input_form is InputForm.NORMALISED:
            return images
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        if self.flipped:
            pixels = pixels.flip(1)
        return (pixels - self.get_buffer("mean")) / self.get_buffer("std")

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs that the config asks for, of images in the form that it asks for."""
        config = self.config
        if config.output_form is OutputForm.MAPS:
            return tuple(item.to(self.io_dtype) for item in self.backbone.maps(self._normalised(images)))
        features: Tensor = self.backbone(self._normalised(images))
        if config.output_form is OutputForm.FEATURES:
            return features.to(self.io_dtype)
        logits = widened(self.head(features))
        if config.output_form is OutputForm.LOGITS:
            return logits.to(self.io_dtype)
        probabilities = torch.softmax(logits, 1)
        if config.output_form is OutputForm.PROBABILITIES:
            return probabilities.to(self.io_dtype)
        scores, labels = torch.topk(probabilities, config.topk, dim=1)
        return scores.to(self.io_dtype), labels


def lower(model: RIFormer, config: LoweringConfig, preprocessing: Preprocessing) -> LoweredRIFormer:
    """Rebuild a folded model for one precision; the same config of the same model gives the same again.

    Args:
        model: In folded form, float32, or float64 to compute in it what the config wants in fp32; stays as it
            was.
        config: How; of int8 and fp8, with the ranges that a calibration gave.
        preprocessing: The model's.

    Raises:
        OptionError: int8 or fp8 without ranges.
    """
    if config.precision.is_quantized and config.calibration is None and not config.ranges:
        raise OptionError(
            f"The config of {config.precision} holds no ranges to quantise to.",
            remedy="Resolve it with a calibration first (resolve_lowering).",
        )
    return LoweredRIFormer(model, config, preprocessing).eval().requires_grad_(requires_grad=False)
