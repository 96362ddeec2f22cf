"""The blocks of RIFormer in training, deploy and folded form, and the convolutions between its stages.

A block in training form (RIFormer, CVPR 2023, arXiv:2304.05659)::

    x = x + layer_scale_1 * (affine(norm1(x)) - norm1(x))
    x = x + layer_scale_2 * fc2(gelu(fc1(norm2(x))))

in deploy form ``norm_reparam(x)`` stands for the bracket, and in folded form the layer scales and
the affine part of ``norm2`` are gone into their neighbours.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from riformer_deploy.model.architecture import Form

EPSILON = 1e-5
"""Added to the variance by every norm, as mmcv's ``GN`` does by default."""


def single_group(dim: int, *, affine: bool = True) -> nn.GroupNorm:
    """The norm of RIFormer: over all channels and pixels of a sample."""
    return nn.GroupNorm(1, dim, eps=EPSILON, affine=affine)


def fuse_affine(
    norm_weight: Tensor, norm_bias: Tensor, affine_weight: Tensor, affine_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one norm that ``affine(norm(x)) - norm(x)`` is; all tensors hold (dim,) values.

    Formula: ``RIFormerBlock.fuse_affine`` in mmpretrain 1.2.0.
    """
    scale = affine_weight.reshape(-1) - 1
    return norm_weight * scale, norm_bias * scale + affine_bias


class PatchEmbed(nn.Module):
    """A strided convolution that halves or quarters the resolution."""

    def __init__(self, in_dim: int, dim: int, *, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``x`` (N, in_dim, H, W) as (N, dim, about H / stride, about W / stride)."""
        return self.proj(x)


class Affine(nn.Module):
    """The token mixer of training: a per-channel scale and shift, minus the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.affine = nn.Conv2d(dim, dim, 1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``x`` (N, dim, H, W); the shape stays."""
        return self.affine(x) - x


class Mlp(nn.Module):
    """Two 1x1 convolutions with an exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, dim, H, W); the shape stays."""
        return self.fc2(self.act(self.fc1(x)))


class TrainingBlock(nn.Module):
    """A block as training leaves it."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = single_group(dim)
        self.token_mixer = Affine(dim)
        self.norm2 = single_group(dim)
        self.mlp = Mlp(dim, hidden)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, dim, H, W); the shape stays."""
        x = x + self.layer_scale_1[:, None, None] * self.token_mixer(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))

    def as_deploy(self) -> DeployBlock:
        """The same function in deploy form; every parameter but the fused norm's is shared, not copied."""
        norm, affine = self.norm1, self.token_mixer.affine
        assert affine.bias is not None  # noqa: S101  # it is made with one
        wide = (value.detach().double() for value in (norm.weight, norm.bias, affine.weight, affine.bias))
        weight, bias = (value.to(norm.weight.dtype) for value in fuse_affine(*wide))
        with torch.device("meta"):
            block = DeployBlock(len(weight), self.mlp.fc1.out_channels)
        block.norm_reparam.weight = nn.Parameter(weight, requires_grad=norm.weight.requires_grad)
        block.norm_reparam.bias = nn.Parameter(bias, requires_grad=norm.bias.requires_grad)
        block.norm2, block.mlp = self.norm2, self.mlp
        block.layer_scale_1, block.layer_scale_2 = self.layer_scale_1, self.layer_scale_2
        return block.train(self.training)


class DeployBlock(nn.Module):
    """A block after mmpretrain's ``switch_to_deploy``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm_reparam = single_group(dim)
        self.norm2 = single_group(dim)
        self.mlp = Mlp(dim, hidden)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, dim, H, W); the shape stays."""
        x = x + self.layer_scale_1[:, None, None] * self.norm_reparam(x)
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class FoldedBlock(nn.Module):
    """A block with nothing left to fold; ``norm2`` only normalises."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm_reparam = single_group(dim)
        self.norm2 = single_group(dim, affine=False)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, dim, H, W); the shape stays."""
        x = x + self.norm_reparam(x)
        return x + self.mlp(self.norm2(x))


def make_block(form: Form, dim: int, hidden: int) -> nn.Module:
    """A block of ``dim`` channels, ``hidden`` in its MLP, with initial weights."""
    match form:
        case Form.TRAINING:
            return TrainingBlock(dim, hidden)
        case Form.DEPLOY:
            return DeployBlock(dim, hidden)
        case Form.FOLDED:
            return FoldedBlock(dim, hidden)
        case _:
            assert_never(form)
