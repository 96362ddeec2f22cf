"""Tells from keys and shapes alone which RIFormer a state dict is, and whether it is whole.

The stored config decides nothing here: it is only held against the tensors, and against what is computed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from riformer_deploy.checkpoints.mmengine_config import contradictions, refused_settings
from riformer_deploy.checkpoints.placeholders import UnusableTensor
from riformer_deploy.common.errors import CheckpointKeysError, CheckpointMismatchError, NotRIFormerError
from riformer_deploy.model.architecture import LAST_STAGE, STAGES, Architecture, Form

_PARTS = frozenset(
    {
        "layer_scale_1", "layer_scale_2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias",
        "norm_reparam.weight", "norm_reparam.bias", "token_mixer.affine.weight", "token_mixer.affine.bias",
        "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
    }
)  # fmt: skip
_QUORUM = 3
_NO_HEAD = "no classifier (head.fc.weight, head.fc.bias)"
_BLOCK = re.compile(r"backbone\.network\.([0246])\.(\d{1,3})\.(.+)")


def recognise_form(path: Path, state: Mapping[str, Any]) -> Form:
    """Training or deploy form, by the keys of the blocks.

    Args:
        path: Named in errors.
        state: Tensors by mmpretrain's keys, without prefixes.

    Raises:
        CheckpointKeysError: The state dict mixes both forms.
        NotRIFormerError: It has neither.
    """
    blocks: dict[Form, set[str]] = {Form.TRAINING: set(), Form.DEPLOY: set()}
    for key in state:
        if match := _BLOCK.fullmatch(key):
            name = f"backbone.network.{match[1]}.{match[2]}"
            if match[3].startswith(("norm1.", "token_mixer.affine.")):
                blocks[Form.TRAINING].add(name)
            elif match[3].startswith("norm_reparam."):
                blocks[Form.DEPLOY].add(name)
    training, deploy = sorted(blocks[Form.TRAINING]), sorted(blocks[Form.DEPLOY])
    if training and deploy:
        raise CheckpointKeysError(
            f"{path} mixes the training and the deploy form.",
            details=[
                f"training form (norm1, token_mixer.affine): {', '.join(training)}",
                f"deploy form (norm_reparam): {', '.join(deploy)}",
            ],
            remedy="Such a file comes of merging two state dicts; give the training checkpoint.",
        )
    if deploy:
        return Form.DEPLOY
    if any(".token_mixer.affine." in key for key in state):
        return Form.TRAINING
    sample = ", ".join(list(state)[:3])
    raise NotRIFormerError(
        f"{path} is not a RIFormer: no block has an affine branch (token_mixer.affine) or a norm_reparam.",
        details=[f"{len(state)} entries, the first: {sample}" if sample else "it holds no entries"],
        remedy="PoolFormer and MetaFormer relatives share other keys but not these.",
    )


def recognise_architecture(path: Path, state: Mapping[str, Any]) -> Architecture:
    """The shape of the network, by vote of the tensors: one wrong shape is outvoted, and reported later.

    Args:
        path: Named in errors.
        state: Tensors by mmpretrain's keys, without prefixes.

    Raises:
        CheckpointKeysError: A stage, its width or the classifier is missing altogether.
    """
    parts = [Counter[int]() for _ in range(STAGES)]
    dims = [Counter[int]() for _ in range(STAGES)]
    hidden = [Counter[int]() for _ in range(STAGES)]
    classes = Counter[int]()
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            continue
        size = value.shape[0]
        if size == 0:
            continue  # no vote; its shape is reported with the others
        if match := _BLOCK.fullmatch(key):
            stage = int(match[1]) // 2
            parts[stage][int(match[2])] += match[3] in _PARTS
            (hidden if match[3].startswith("mlp.fc1.") else dims)[stage][size] += 1
        elif key.startswith("head.fc."):
            classes[size] += 1
    # A stray key does not make a block: a few of its parts must be there.
    layers = [max((i + 1 for i, seen in found.items() if seen >= _QUORUM), default=0) for found in parts]
    problems = [
        f"no block of stage {i + 1} (backbone.network.{2 * i}.*)" for i in range(STAGES) if not layers[i]
    ]
    problems += [
        f"no {what} in stage {i + 1}, so its width is unknown"
        for i in range(STAGES)
        for what, votes in (("norm or mlp.fc2", dims[i]), ("mlp.fc1", hidden[i]))
        if layers[i] and not votes
    ]
    if not classes:
        problems.append(_NO_HEAD)
    widths, hidden_widths = [_elected(votes) for votes in dims], [_elected(votes) for votes in hidden]
    problems += [
        f"stage {i + 1} and stage {i + 2} have the same width {widths[i]}"
        for i in range(STAGES - 1)
        if widths[i] and widths[i] == widths[i + 1]
    ]
    if problems:
        headless = problems == [_NO_HEAD]
        raise CheckpointKeysError(
            f"{path} holds a RIFormer backbone without a head."
            if headless
            else f"{path} is not a whole RIFormer classifier.",
            details=problems,
            remedy="Give the checkpoint of the classifier (backbone, neck and head), as training wrote it.",
        )
    return Architecture(
        layers=tuple(layers),
        embed_dims=tuple(widths),
        hidden_dims=tuple(hidden_widths),
        num_classes=_elected(classes),
    )


def _elected(votes: Counter[int]) -> int:
    """The size that most tensors have; 0 where nobody voted."""
    return votes.most_common(1)[0][0] if votes else 0


def check_keys(
    path: Path,
    state: Mapping[str, Any],
    architecture: Architecture,
    form: Form,
    *,
    out_indices: Sequence[int] = (LAST_STAGE,),
    also: Sequence[str] = (),
) -> None:
    """See that every tensor is there, in its shape, and nothing else.

    Args:
        path: Named in errors.
        state: Tensors by mmpretrain's keys, without prefixes.
        architecture: What the state dict was recognised as.
        form: The form that the keys are those of.
        out_indices: Positions of the backbone whose norms it must hold.
        also: What else is wrong with the file, listed along.

    Raises:
        CheckpointKeysError: Something is missing, unexpected or mis-shaped; all of it is listed.
    """
    expected = architecture.shapes(form, out_indices)
    problems = [f"missing: {key} {shape}" for key, shape in expected.items() if key not in state]
    for key, value in state.items():
        if key not in expected:
            problems.append(f"unexpected: {key}")
        elif isinstance(value, UnusableTensor):
            pass  # what reads its values says why it has none
        elif not isinstance(value, Tensor):
            problems.append(f"not a tensor: {key} is a {type(value).__name__}")
        elif tuple(value.shape) != expected[key]:
            problems.append(f"shape: {key} is {tuple(value.shape)}, expected {expected[key]}")
    if problems:
        raise CheckpointKeysError(
            f"{path} does not fit the RIFormer that it was recognised as ({form} form, layers "
            f"{architecture.layers}, embed_dims {architecture.embed_dims}): {len(problems)} problem(s).",
            details=[*problems, *also],
            remedy="Loading it with strict=False would leave such tensors at their initial values.",
        )


def check_settings(
    path: Path, state: Mapping[str, Any], config: str | None, architecture: Architecture
) -> None:
    """Refuse what is computed otherwise than here: other pictures than RGB, and settings of the config.

    Args:
        path: Named in errors.
        state: Tensors by mmpretrain's keys, without prefixes.
        config: The text that training stored; None where there is none.
        architecture: What the state dict was recognised as.

    Raises:
        CheckpointKeysError: The first convolution takes another number of channels than three.
        CheckpointMismatchError: The config has settings that are not computed here; all of them are listed.
    """
    problems = refused_settings(config) if config is not None else []
    stem = state.get("backbone.patch_embed.proj.weight")
    shape = tuple(stem.shape) if isinstance(stem, Tensor) else ()
    if len(shape) == 4 and shape[1] not in (0, 3):
        raise CheckpointKeysError(
            f"{path} takes {shape[1]}-channel pictures; only RGB (3 channels) is supported.",
            details=[f"backbone.patch_embed.proj.weight is {shape}", *problems],
            remedy="Export it with the framework that trained it, or train it on three channels.",
        )
    if problems and config is not None:
        raise CheckpointMismatchError(
            f"The config that is stored in {path} describes another function than this toolkit computes: "
            f"{len(problems)} setting(s).",
            details=[*problems, *contradictions(config, architecture)],
            remedy="No tensor's shape shows these settings, so the result would differ unnoticed: export it "
            "with the framework that trained it. Where the config is wrong, correct meta['cfg'] in the file.",
        )


def check_config(path: Path, config: str, architecture: Architecture) -> None:
    """Refuse tensors that are not all that the stored config describes, such as a stage cut short.

    Args:
        path: Named in errors.
        config: The text that training stored.
        architecture: What the state dict was recognised as.

    Raises:
        CheckpointKeysError: The two describe different shapes.
    """
    if problems := contradictions(config, architecture):
        raise CheckpointKeysError(
            f"{path} holds another network than the config that is stored in it describes.",
            details=problems,
            remedy="Tensors were lost or exchanged; go back to the file as training wrote it.",
        )
