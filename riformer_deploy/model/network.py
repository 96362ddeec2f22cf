"""RIFormer as an ``nn.Module``, in training, deploy and folded form.

Module and parameter names are those of mmpretrain's RIFormer classifier, so that its state dicts
load as they are. A block in training form (RIFormer, CVPR 2023, arXiv:2304.05659)::

    x = x + layer_scale_1 * (affine(norm1(x)) - norm1(x))
    x = x + layer_scale_2 * fc2(gelu(fc1(norm2(x))))

in deploy form ``norm_reparam(x)`` stands for the bracket, and in folded form the layer scales and
the affine part of ``norm2`` are gone into their neighbours.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from riformer_deploy.model.architecture import Architecture, Form

EPSILON = 1e-5
"""Added to the variance by every norm, as mmcv's ``GN`` does by default."""


def _norm(dim: int, *, affine: bool = True) -> nn.GroupNorm:
    return nn.GroupNorm(1, dim, eps=EPSILON, affine=affine)


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
        self.norm1 = _norm(dim)
        self.token_mixer = Affine(dim)
        self.norm2 = _norm(dim)
        self.mlp = Mlp(dim, hidden)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, dim, H, W); the shape stays."""
        x = x + self.layer_scale_1[:, None, None] * self.token_mixer(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class DeployBlock(nn.Module):
    """A block after mmpretrain's ``switch_to_deploy``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm_reparam = _norm(dim)
        self.norm2 = _norm(dim)
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
        self.norm_reparam = _norm(dim)
        self.norm2 = _norm(dim, affine=False)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` (N, dim, H, W); the shape stays."""
        x = x + self.norm_reparam(x)
        return x + self.mlp(self.norm2(x))


def _block(form: Form, dim: int, hidden: int) -> nn.Module:
    match form:
        case Form.TRAINING:
            return TrainingBlock(dim, hidden)
        case Form.DEPLOY:
            return DeployBlock(dim, hidden)
        case Form.FOLDED:
            return FoldedBlock(dim, hidden)
        case _:
            assert_never(form)


class Backbone(nn.Module):
    """Stem, four stages with downsampling between them, and the final norm."""

    def __init__(self, architecture: Architecture, form: Form) -> None:
        super().__init__()
        dims = architecture.embed_dims
        self.patch_embed = PatchEmbed(3, dims[0], kernel=7, stride=4, padding=2)
        network: list[nn.Module] = []
        for stage, count in enumerate(architecture.layers):
            if stage > 0:
                network.append(PatchEmbed(dims[stage - 1], dims[stage], kernel=3, stride=2, padding=1))
            hidden = architecture.hidden_dims[stage]
            network.append(nn.Sequential(*(_block(form, dims[stage], hidden) for _ in range(count))))
        self.network = nn.ModuleList(network)
        self.norm6 = _norm(dims[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Feature map of ``images``: (N, 3, H, W) normalised to (N, dim, about H / 32, about W / 32)."""
        x = self.patch_embed(images)
        for module in self.network:
            x = module(x)
        return self.norm6(x)


class LinearHead(nn.Module):
    """The classifier."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of pooled ``features`` (N, dim)."""
        return self.fc(features)


class RIFormer(nn.Module):
    """The classifier: backbone, global average pooling and a linear head.

    Args:
        architecture: Shape of the network.
        form: How its blocks are parameterised.

    The weights are PyTorch's initial ones until a state dict is loaded.
    """

    def __init__(self, architecture: Architecture, form: Form = Form.TRAINING) -> None:
        super().__init__()
        self.architecture = architecture
        self.form = form
        self.backbone = Backbone(architecture, form)
        self.head = LinearHead(architecture.embed_dims[-1], architecture.num_classes)

    def extract_feat(self, images: Tensor) -> Tensor:
        """Pooled features (N, dim) of ``images`` (N, 3, H, W), normalised, H and W at least 3."""
        return self.backbone(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores before softmax, (N, classes), of ``images`` (N, 3, H, W), normalised."""
        return self.head(self.extract_feat(images))

    def all_outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, probabilities (both (N, classes)) and features (N, dim) of ``images`` (N, 3, H, W)."""
        features = self.extract_feat(images)
        logits = self.head(features)
        return logits, torch.softmax(logits, 1), features


def empty_model(architecture: Architecture, form: Form) -> RIFormer:
    """A model without storage, for counting or for ``load_state_dict(..., assign=True)``."""
    with torch.device("meta"):
        return RIFormer(architecture, form)


def model_from_state(architecture: Architecture, form: Form, state: dict[str, Tensor]) -> RIFormer:
    """The model of these weights, in evaluation mode; the tensors are taken over, not copied.

    Args:
        architecture: Shape of the network.
        form: The form that ``state`` is in.
        state: Exactly the keys and shapes of ``architecture.shapes(form)``.
    """
    model = empty_model(architecture, form)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(requires_grad=False)
