"""RIFormer as an ``nn.Module``: the classifier of :mod:`riformer_deploy.model.blocks`.

Module and parameter names are those of mmpretrain's RIFormer classifier, so that its state dicts
load as they are, and code that was written for it finds what it looks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor, nn

from riformer_deploy.common.errors import OptionError
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import LAST_STAGE, Architecture, Form, checked_out_indices
from riformer_deploy.model.blocks import PatchEmbed, TrainingBlock, make_block, single_group
from riformer_deploy.model.data_preprocessor import DataPreprocessor


class Backbone(nn.Module):
    """Stem, four stages with downsampling between them, and a norm for each map that is given.

    Args:
        architecture: Shape of the network.
        form: How its blocks are parameterised.
        out_indices: Positions in ``network`` whose outputs are given, each through its own norm: 0, 2, 4
            and 6 are the stages, 1, 3 and 5 the downsamplings between them.
    """

    norm6: nn.GroupNorm

    def __init__(
        self, architecture: Architecture, form: Form, out_indices: Sequence[int] = (LAST_STAGE,)
    ) -> None:
        super().__init__()
        dims = architecture.embed_dims
        self.form = form
        self.patch_embed = PatchEmbed(3, dims[0], kernel=7, stride=4, padding=2)
        network: list[nn.Module] = []
        for stage, count in enumerate(architecture.layers):
            if stage > 0:
                network.append(PatchEmbed(dims[stage - 1], dims[stage], kernel=3, stride=2, padding=1))
            hidden = architecture.hidden_dims[stage]
            network.append(nn.Sequential(*(make_block(form, dims[stage], hidden) for _ in range(count))))
        self.network = nn.ModuleList(network)
        self.out_indices = checked_out_indices(out_indices)
        for index in self.out_indices:
            self.add_module(f"norm{index}", single_group(dims[(index + 1) // 2]))

    @property
    def deploy(self) -> bool:
        """Whether the blocks hold no affine branch any more."""
        return self.form is not Form.TRAINING

    def switch_to_deploy(self) -> None:
        """Turn the training form into the deploy form, in place; a second call changes nothing.

        Fused in float64 and rounded once.

        Raises:
            OptionError: The backbone is in folded form, which cannot be undone.
        """
        if self.form is Form.FOLDED:
            raise OptionError("A folded model cannot be turned back into the deploy form.")
        for stage in self.network:
            if isinstance(stage, nn.Sequential):
                for index, block in enumerate(stage):
                    if isinstance(block, TrainingBlock):
                        stage[index] = block.as_deploy()
        self.form = Form.DEPLOY

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of normalised ``images`` (N, 3, H, W): one for each of ``out_indices``, ascending.

        The last stage's map is (N, dim, about H / 32, about W / 32).
        """
        x = self.patch_embed(images)
        maps = []
        for index, module in enumerate(self.network):
            x = module(x)
            if index in self.out_indices:
                maps.append(self.get_submodule(f"norm{index}")(x))
        return tuple(maps)


class GlobalAveragePooling(nn.Module):
    """Pools each map over its pixels."""

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(N, dim) for each of ``maps`` (N, dim, H, W)."""
        return tuple(value.mean((2, 3)) for value in maps)


class LinearHead(nn.Module):
    """The classifier."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, num_classes)

    def pre_logits(self, features: tuple[Tensor, ...]) -> Tensor:
        """What the linear layer takes: the last of ``features``, (N, dim)."""
        return features[-1]

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits (N, classes) of pooled ``features``, of which the last, (N, dim), is taken."""
        return self.fc(self.pre_logits(features))


Stage = Literal["backbone", "neck", "pre_logits"]
"""What :meth:`RIFormer.extract_feat` gives, by mmpretrain's names."""


class RIFormer(nn.Module):
    """The classifier: backbone, global average pooling and a linear head.

    Args:
        architecture: Shape of the network.
        form: How its blocks are parameterised.
        out_indices: As :class:`Backbone` takes them; without 6 there are features but no class scores.
        preprocessing: What is done to a picture first; None where it is not known. Then
            ``data_preprocessor`` normalises with ImageNet's mean and deviation.
        class_names: One for each output, where they are known.

    The weights are PyTorch's initial ones until a state dict is loaded.
    """

    def __init__(
        self,
        architecture: Architecture,
        form: Form = Form.TRAINING,
        *,
        out_indices: Sequence[int] = (LAST_STAGE,),
        preprocessing: Preprocessing | None = None,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.class_names = class_names
        self.data_preprocessor = DataPreprocessor.of(preprocessing)
        self.backbone = Backbone(architecture, form, out_indices)
        self.neck = GlobalAveragePooling()
        self.head = LinearHead(architecture.embed_dims[-1], architecture.num_classes)

    @property
    def form(self) -> Form:
        """How the blocks are parameterised."""
        return self.backbone.form

    @overload
    def extract_feat(
        self, inputs: Tensor, stage: Literal["backbone", "neck"] = "neck"
    ) -> tuple[Tensor, ...]: ...
    @overload
    def extract_feat(self, inputs: Tensor, stage: Literal["pre_logits"]) -> Tensor: ...
    def extract_feat(self, inputs: Tensor, stage: Stage = "neck") -> tuple[Tensor, ...] | Tensor:
        """Features of ``inputs`` (N, 3, H, W), normalised, H and W at least 3.

        Args:
            inputs: The images.
            stage: ``neck`` for pooled features (N, dim), a tuple with one for each of the backbone's
                ``out_indices``; ``backbone`` for the maps (N, dim, H, W), one for each too;
                ``pre_logits`` for what the linear layer takes, one tensor.

        Raises:
            OptionError: ``stage`` is none of these.
        """
        maps: tuple[Tensor, ...] = self.backbone(inputs)
        match stage:
            case "backbone":
                return maps
            case "neck":
                return self.neck(maps)
            case "pre_logits":
                return self.head.pre_logits(self.neck(maps))
            case _:
                raise OptionError(f"stage must be backbone, neck or pre_logits, got {stage!r}.")

    def forward(self, inputs: Tensor) -> Tensor:
        """Class scores before softmax, (N, classes), of ``inputs`` (N, 3, H, W), normalised.

        Raises:
            OptionError: The last stage is not among the backbone's ``out_indices``.
        """
        if LAST_STAGE not in self.backbone.out_indices:
            raise OptionError(
                f"A model with out_indices {self.backbone.out_indices} has no class scores: the head takes "
                "the last stage's features.",
                remedy=f"Add {LAST_STAGE} to out_indices, or use extract_feat.",
            )
        return self.head(self.extract_feat(inputs))

    def all_outputs(self, images: Tensor, maps: Sequence[int] = ()) -> tuple[Tensor, ...]:
        """Logits, probabilities (both (N, classes)), features (N, dim), and maps (N, dim, H, W).

        Args:
            images: (N, 3, H, W), normalised.
            maps: Those of the backbone's ``out_indices`` whose maps are given, ascending.
        """
        given = dict(zip(self.backbone.out_indices, self.backbone(images), strict=True))
        features = self.neck((given[LAST_STAGE],))
        logits = self.head(features)
        return (logits, torch.softmax(logits, 1), features[0], *(given[index] for index in maps))


def empty_model(
    architecture: Architecture,
    form: Form,
    *,
    out_indices: Sequence[int] = (LAST_STAGE,),
    preprocessing: Preprocessing | None = None,
    class_names: tuple[str, ...] | None = None,
) -> RIFormer:
    """A model without storage, for counting or for ``load_state_dict(..., assign=True)``."""
    with torch.device("meta"):
        return RIFormer(
            architecture, form, out_indices=out_indices, preprocessing=preprocessing, class_names=class_names
        )


def model_from_state(
    architecture: Architecture,
    form: Form,
    state: dict[str, Tensor],
    *,
    out_indices: Sequence[int] = (LAST_STAGE,),
    preprocessing: Preprocessing | None = None,
    class_names: tuple[str, ...] | None = None,
) -> RIFormer:
    """The model of these weights, in evaluation mode; the tensors are taken over, not copied.

    Args:
        architecture: Shape of the network.
        form: The form that ``state`` is in.
        state: Exactly the keys and shapes of ``architecture.shapes(form, out_indices)``.
        out_indices: As :class:`RIFormer` takes them.
        preprocessing: What is done to pictures first; None where it is not known.
        class_names: One for each output; None where they are not known.
    """
    model = empty_model(
        architecture, form, out_indices=out_indices, preprocessing=preprocessing, class_names=class_names
    )
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(requires_grad=False)
