"""Names of layers and blocks, spelled one by one, by what holds them, or by what they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from riformer_deploy.common.enums import LayerGroup

_LAST_PARTS = {
    "patch_embed.proj": LayerGroup.STEM,
    "mlp.fc1": LayerGroup.FC1,
    "mlp.fc2": LayerGroup.FC2,
    "head.fc": LayerGroup.HEAD,
}


def group_of(layer: str) -> LayerGroup:
    """The group of a layer that can be quantised.

    Args:
        layer: Its name in the folded model, such as ``backbone.network.0.1.mlp.fc1``.
    """
    return _LAST_PARTS.get(".".join(layer.split(".")[-2:]), LayerGroup.DOWNSAMPLING)


def _selects(choice: str, name: str) -> bool:
    if choice in set(LayerGroup):
        return group_of(name) == choice
    return name == choice or name.startswith(f"{choice}.")


def selected(choices: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that any choice selects, in their own order.

    Args:
        choices: Each a name, the name of a module that holds the named ones (the block
            ``backbone.network.4.1``, the stage ``backbone.network.4``), or a :class:`LayerGroup`.
        names: Of layers, or of blocks.
    """
    return tuple(name for name in names if any(_selects(choice, name) for choice in choices))


def unmatched(choices: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Those of the choices that select none of the names, sorted."""
    known = tuple(names)
    return tuple(sorted(choice for choice in set(choices) if not selected((choice,), known)))
