"""The shape of a RIFormer: depths, widths, and every key that its state dict has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from riformer_deploy.common.errors import OptionError

STAGES = 4
"""Stages of every RIFormer: the final norm is ``norm6``, after the fourth."""

LAST_STAGE = 6
"""Position of the fourth stage in ``backbone.network``, where stages and downsamplings alternate."""

POSITIONS = tuple(range(LAST_STAGE + 1))
"""Of ``backbone.network``; each may have a norm of its own and give a map."""

SMALLEST_SIDE_PX = 3
"""Of an image: a 7x7 convolution with padding 2 needs three pixels."""


MOST_BLOCKS, MOST_CHANNELS, MOST_CLASSES = 1_000, 65_536, 10_000_000
"""Of a stage, of a layer, of the head. What a file states beyond is not built: the largest published model
has 24 blocks a stage and 3,072 channels."""


class Form(StrEnum):
    """How the blocks of a model are parameterised."""

    TRAINING = "training"
    """``norm1`` and an affine branch, as training leaves it."""
    DEPLOY = "deploy"
    """One ``norm_reparam``, as mmpretrain's ``switch_to_deploy`` makes it."""
    FOLDED = "folded"
    """Layer scales and ``norm2``'s affine folded away too; ours alone."""


def sides_after(sides: tuple[int, int], *, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Height and width of what a convolution gives."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides)
    return height, width


def map_name(position: int) -> str:
    """What the output is called that gives the map at a position in ``backbone.network``.

    Args:
        position: 0, 2, 4 and 6 are ``stage1`` to ``stage4``, 1, 3 and 5 ``downsampling1`` to
            ``downsampling3``.
    """
    return f"stage{position // 2 + 1}" if position % 2 == 0 else f"downsampling{position // 2 + 1}"


MAPS = tuple(map(map_name, POSITIONS))
"""Names of outputs that are maps."""


def checked_out_indices(out_indices: int | Sequence[int]) -> tuple[int, ...]:
    """Positions in ``backbone.network`` in ascending order; a negative one counts from the end.

    Args:
        out_indices: One position or several, from 0 to 6 (or -7 to -1).

    Raises:
        OptionError: There is none, one is out of range, or one is named twice.
    """
    asked = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    count = LAST_STAGE + 1
    found = tuple(sorted(index + count if index < 0 else index for index in asked))
    if not found or len(set(found)) < len(found) or not 0 <= found[0] <= found[-1] <= LAST_STAGE:
        raise OptionError(
            f"out_indices must be different positions from 0 to {LAST_STAGE}, got {out_indices}.",
            remedy="0, 2, 4 and 6 are the four stages; 1, 3 and 5 are the downsamplings between them.",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The shape of a RIFormer.

    Attributes:
        layers: Blocks of each of the four stages.
        embed_dims: Channels of each stage; neighbours differ, since mmpretrain downsamples only then.
        hidden_dims: Channels between the two convolutions of each stage's MLPs.
        num_classes: Outputs of the head.
    """

    layers: tuple[int, ...]
    embed_dims: tuple[int, ...]
    hidden_dims: tuple[int, ...]
    num_classes: int

    def __post_init__(self) -> None:
        problems = [
            f"{name} needs {STAGES} positive integers, got {value}"
            for name, value in (
                ("layers", self.layers),
                ("embed_dims", self.embed_dims),
                ("hidden_dims", self.hidden_dims),
            )
            if len(value) != STAGES or any(v < 1 for v in value)
        ]
        problems += [
            f"{name} may be at most {most:,}, got {value}"
            for name, value, most in (
                ("layers", self.layers, MOST_BLOCKS),
                ("embed_dims", self.embed_dims, MOST_CHANNELS),
                ("hidden_dims", self.hidden_dims, MOST_CHANNELS),
                ("num_classes", (self.num_classes,), MOST_CLASSES),
            )
            if max(value, default=0) > most
        ]
        if self.num_classes < 1:
            problems.append(f"num_classes must be positive, got {self.num_classes}")
        if any(a == b for a, b in zip(self.embed_dims, self.embed_dims[1:], strict=False)):
            problems.append(f"neighbouring embed_dims must differ, got {self.embed_dims}")
        if problems:
            raise OptionError("This is not a RIFormer architecture.", details=problems)

    @classmethod
    def from_arch(
        cls,
        layers: Sequence[int],
        embed_dims: Sequence[int],
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        *,
        num_classes: int = 1000,
    ) -> Architecture:
        """The architecture of mmpretrain's ``arch`` dictionary.

        Args:
            layers: Blocks per stage.
            embed_dims: Channels per stage.
            mlp_ratios: MLP expansion per stage; the hidden width is ``int(dim * ratio)``.
            num_classes: Outputs of the head.

        Raises:
            OptionError: The values do not describe a RIFormer.
        """
        hidden = tuple(int(dim * ratio) for dim, ratio in zip(embed_dims, mlp_ratios, strict=False))
        if len(mlp_ratios) != STAGES:
            raise OptionError(f"mlp_ratios needs {STAGES} numbers, got {tuple(mlp_ratios)}.")
        return cls(
            layers=tuple(layers),
            embed_dims=tuple(embed_dims),
            hidden_dims=hidden,
            num_classes=num_classes,
        )

    def map_shape(self, position: int, image_size_px: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the map at a position in ``backbone.network``.

        Args:
            position: 0 to 6.
            image_size_px: Height and width of the image, at least 3 each.
        """
        sides = sides_after(image_size_px, kernel=7, stride=4, padding=2)
        for _ in range((position + 1) // 2):
            sides = sides_after(sides, kernel=3, stride=2, padding=1)
        return self.embed_dims[(position + 1) // 2], *sides

    @property
    def block_names(self) -> tuple[tuple[str, ...], ...]:
        """State-dict prefixes of the blocks, stage by stage."""
        return tuple(
            tuple(f"backbone.network.{2 * stage}.{block}" for block in range(count))
            for stage, count in enumerate(self.layers)
        )

    def shapes(self, form: Form, out_indices: int | Sequence[int] = LAST_STAGE) -> dict[str, tuple[int, ...]]:
        """Every state-dict key of mmpretrain's RIFormer classifier, with its shape.

        Args:
            form: The form whose keys to list.
            out_indices: Positions of the backbone's outputs, each of which has a norm.
        """
        dims = self.embed_dims
        shapes: dict[str, tuple[int, ...]] = {
            "backbone.patch_embed.proj.weight": (dims[0], 3, 7, 7),
            "backbone.patch_embed.proj.bias": (dims[0],),
        }
        for stage, names in enumerate(self.block_names):
            dim, hidden = dims[stage], self.hidden_dims[stage]
            if stage > 0:
                shapes[f"backbone.network.{2 * stage - 1}.proj.weight"] = (dim, dims[stage - 1], 3, 3)
                shapes[f"backbone.network.{2 * stage - 1}.proj.bias"] = (dim,)
            block: dict[str, tuple[int, ...]] = {}
            if form is Form.TRAINING:
                block |= {"layer_scale_1": (dim,), "layer_scale_2": (dim,)}
                block |= {"norm1.weight": (dim,), "norm1.bias": (dim,)}
                block |= {"token_mixer.affine.weight": (dim, 1, 1, 1), "token_mixer.affine.bias": (dim,)}
                block |= {"norm2.weight": (dim,), "norm2.bias": (dim,)}
            elif form is Form.DEPLOY:
                block |= {"layer_scale_1": (dim,), "layer_scale_2": (dim,)}
                block |= {"norm_reparam.weight": (dim,), "norm_reparam.bias": (dim,)}
                block |= {"norm2.weight": (dim,), "norm2.bias": (dim,)}
            else:
                block |= {"norm_reparam.weight": (dim,), "norm_reparam.bias": (dim,)}
            block |= {"mlp.fc1.weight": (hidden, dim, 1, 1), "mlp.fc1.bias": (hidden,)}
            block |= {"mlp.fc2.weight": (dim, hidden, 1, 1), "mlp.fc2.bias": (dim,)}
            for name in names:
                shapes |= {f"{name}.{key}": shape for key, shape in block.items()}
        for index in checked_out_indices(out_indices):
            width = (dims[(index + 1) // 2],)
            shapes |= {f"backbone.norm{index}.weight": width, f"backbone.norm{index}.bias": width}
        shapes |= {
            "head.fc.weight": (self.num_classes, dims[-1]),
            "head.fc.bias": (self.num_classes,),
        }
        return shapes
