"""Which class each folder of a dataset is: by its name, and never by its place where names are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.errors import DatasetError
from riformer_deploy.data.class_names import imagenet_ids, imagenet_names

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The classes that labels are numbers of.

    Attributes:
        count: How many the model has.
        names: One each, if known.
    """

    count: int
    names: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class FolderMatch:
    """Which class each folder is.

    Attributes:
        labels: Number of the class by the folder's name.
        how: How that was found, in words.
        notes: What the user should know of it.
    """

    labels: dict[str, int]
    how: str
    notes: tuple[str, ...] = ()


def match_folders(root: Path, folders: Sequence[str], classes: ClassList) -> FolderMatch:
    """Match folders with classes: by WordNet's ids, names, numbers, names in any case, and last by order.

    Args:
        root: Named in errors.
        folders: Their names, sorted.
        classes: The model's.

    Raises:
        DatasetError: The folders are splits of the dataset, or not all of them are classes.
    """
    names = classes.names or ()
    if classes.count == len(imagenet_ids()) and (not names or names == imagenet_names()):
        by_id = {identity: number for number, identity in enumerate(imagenet_ids())}
        if all(folder in by_id for folder in folders):
            return FolderMatch(labels={f: by_id[f] for f in folders}, how="named by WordNet's ids")
    by_name = {name: number for number, name in enumerate(names) if names.count(name) == 1}
    if all(folder in by_name for folder in folders):
        return FolderMatch(labels={f: by_name[f] for f in folders}, how="named as the model's classes")
    splits = [folder for folder in folders if folder.lower() in _SPLITS and folder not in by_name]
    if splits:
        raise DatasetError(
            f"{root} holds parts of a dataset and not classes: {', '.join(splits)}.",
            remedy=f"Choose one with --split, such as --split {splits[0]}.",
        )
    numbered = _numbered(folders, classes.count)
    if numbered is not None:
        return FolderMatch(labels=numbered, how="named by the classes' numbers")
    return _less_exact(root, folders, classes, by_name)


def _numbered(folders: Sequence[str], count: int) -> dict[str, int] | None:
    """Folders ``0`` to ``N-1``, or some of them, leading zeros or not."""
    if not all(folder.isascii() and folder.isdecimal() for folder in folders):
        return None
    numbers = {folder: int(folder) for folder in folders}
    fit = len(set(numbers.values())) == len(folders) and max(numbers.values()) < count
    return numbers if fit else None


def _less_exact(
    root: Path, folders: Sequence[str], classes: ClassList, by_name: dict[str, int]
) -> FolderMatch:
    folded = [name.casefold() for name in by_name]
    by_folded = {
        name.casefold(): number for name, number in by_name.items() if folded.count(name.casefold()) == 1
    }
    labels = {folder: by_folded[folder.casefold()] for folder in folders if folder.casefold() in by_folded}
    if len(labels) == len(folders) == len(set(labels.values())):
        note = "the class folders are named as the model's classes but for capital letters"
        return FolderMatch(labels=labels, how="named as the model's classes, ignoring case", notes=(note,))
    if not classes.names and len(folders) == classes.count:
        note = "nothing names the classes: the folders are numbered in sorted order, as mmpretrain does"
        by_order = {folder: number for number, folder in enumerate(folders)}
        return FolderMatch(labels=by_order, how="numbered in sorted order", notes=(note,))
    strange = [folder for folder in folders if folder not in labels]
    raise DatasetError(
        f"The {len(folders)} folders of {root} cannot be matched with the model's {classes.count} classes: "
        f"{len(strange)} are not named as any of them"
        + (", and their numbers differ." if not classes.names else "."),
        details=strange,
        remedy="Name the folders as the classes (inspect BUNDLE shows them), or 0 to "
        f"{classes.count - 1} by their numbers.",
    )
