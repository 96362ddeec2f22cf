"""Names of classes: those stored with a checkpoint, a file's, or ImageNet-1k's."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.files import read_regular

IMAGENET_CLASSES = 1000
_MOST_BYTES = 64 << 20


@functools.cache
def _imagenet() -> tuple[tuple[str, str], ...]:
    """WordNet id and name of each class, in the order of the outputs.

    The order is that of the sorted ids (ILSVRC 2012), the names are WordNet's, spelled as mmpretrain
    1.2.0 spells them. One name, ``crane``, is two classes': the bird's (134) and the machine's (517).
    """
    text = resources.files("riformer_deploy").joinpath("data/imagenet-1k.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((identity, name) for identity, name in rows)


def imagenet_names() -> tuple[str, ...]:
    """The 1000 names, in the order of the outputs."""
    return tuple(name for _, name in _imagenet())


def imagenet_ids() -> tuple[str, ...]:
    """The 1000 WordNet ids, such as ``n01440764``, which ImageNet's folders are named after."""
    return tuple(identity for identity, _ in _imagenet())


def read_class_names(path: Path, count: int) -> tuple[str, ...]:
    """Names from a file, one a line, in the order of the outputs.

    Args:
        path: UTF-8 text of at most 64 MiB; empty lines at the end do not count.
        count: How many classes the model has.

    Raises:
        OptionError: The file cannot be read, holds another number of names, or an empty one.
    """
    try:
        lines = read_regular(path, _MOST_BYTES).decode("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise OptionError(f"The class names in {path} cannot be read: {err}") from err
    names = tuple(line.strip() for line in lines)
    problems = [f"line {number} is empty" for number, name in enumerate(names, 1) if not name]
    if len(names) != count:
        problems.append(f"it holds {len(names)} names; the model has {count} classes")
    if problems:
        raise OptionError(
            f"{path} does not name the classes.",
            details=problems,
            remedy="Write one name a line, in the order of the model's outputs.",
        )
    return names


def resolve_class_names(
    stored: tuple[str, ...] | None, count: int, file: Path | str | None, notes: list[str]
) -> tuple[str, ...] | None:
    """The names of a model's classes, from the surest source.

    Args:
        stored: What the checkpoint's ``dataset_meta`` says.
        count: How many classes the model has.
        file: A file that the user named; it goes before everything.
        notes: Receives a sentence where ImageNet-1k's names are taken.

    Returns:
        The names, or None where nothing names them.

    Raises:
        OptionError: The file is not usable.
    """
    if file is not None:
        return read_class_names(Path(file), count)
    if stored is not None:
        return stored
    if count != IMAGENET_CLASSES:
        return None
    notes.append(
        "the checkpoint names no classes; it has 1000, so ImageNet-1k's names are taken (--classes FILE "
        "gives others)"
    )
    return imagenet_names()
