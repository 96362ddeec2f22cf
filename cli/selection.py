"""Options that take lists, repeated or with commas, and what they choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from riformer_deploy.common.enums import Group, Precision

from . import completion
from .options import RunnerChoice

_Choice = TypeVar("_Choice", bound=StrEnum)
_Value = TypeVar("_Value")

_PRECISIONS = ",".join(Precision)

PrecisionsToRun = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar=_PRECISIONS,
        autocompletion=completion.of_list(Precision),
        help="Graphs and engines in these precisions.",
        show_default="every one of the bundle",
    ),
]
PrecisionToRun = Annotated[
    Precision | None,
    typer.Option("--precision", help="Which of the bundle's models.", show_default="the first"),
]
PrecisionsToExport = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar=_PRECISIONS,
        autocompletion=completion.of_list(Precision),
        help="What to export.",
        show_default="fp32",
    ),
]
PrecisionsToBuild = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar=_PRECISIONS,
        autocompletion=completion.of_list(Precision),
        help="Precisions to build.",
        show_default="every model of the bundle",
    ),
]


def split_list(
    values: Sequence[str] | None, parse: Callable[[str], _Value], option: str
) -> tuple[_Value, ...]:
    """The values of an option that may be repeated and may hold commas, each once, in order.

    Args:
        values: As given; None for none.
        parse: Makes a value of a text, or raises ValueError.
        option: Its name, for the message.

    Raises:
        typer.BadParameter: A value is empty or cannot be parsed.
    """
    found: dict[_Value, None] = {}
    for text in (part.strip() for value in values or () for part in value.split(",")):
        try:
            found[parse(text)] = None
        except ValueError as err:
            raise typer.BadParameter(str(err), param_hint=f"'{option}'") from None
    return tuple(found)


def _member(kind: type[_Choice]) -> Callable[[str], _Choice]:
    def parse(text: str) -> _Choice:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not one of {', '.join(map(repr, map(str, kind)))}.") from None

    return parse


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer.") from None


def chosen_precisions(values: Sequence[str] | None) -> tuple[Precision, ...]:
    """What ``--precision`` names, such as ``fp32,fp16``.

    Raises:
        typer.BadParameter: A name is unknown.
    """
    return split_list(values, _member(Precision), "--precision")


def chosen_runners(values: Sequence[str] | None) -> tuple[RunnerChoice, ...]:
    """What ``--with`` names, such as ``torch,onnx``.

    Raises:
        typer.BadParameter: A name is unknown.
    """
    return split_list(values, _member(RunnerChoice), "--with")


def chosen_batches(values: Sequence[str] | None) -> tuple[int, ...]:
    """What ``--batch`` names, such as ``1,8``.

    Raises:
        typer.BadParameter: One is no integer.
    """
    return split_list(values, _integer, "--batch")


def chosen_groups(runners: Sequence[RunnerChoice], *, compiled: bool) -> tuple[Group, ...]:
    """The groups that a command line asks for; none named means all.

    Args:
        runners: As named; ``engine`` brings what engines are measured against.
        compiled: PyTorch, where it takes part, is to be compiled too.
    """
    everything = not runners
    groups: list[Group] = []
    if RunnerChoice.TORCH in runners or everything:
        groups += [Group.TORCH, Group.COMPILED] if compiled else [Group.TORCH]
    if RunnerChoice.ONNX in runners or everything:
        groups.append(Group.ONNX)
    if RunnerChoice.OPENVINO in runners or everything:
        groups.append(Group.OPENVINO)
    if RunnerChoice.ENGINE in runners or everything:
        groups += [Group.GPU, Group.ENGINE]
    return tuple(groups)
