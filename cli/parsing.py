"""Texts of the command line as values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer

from riformer_deploy.common.enums import OutputForm

if TYPE_CHECKING:
    from riformer_deploy.bundle.engine_metadata import BatchProfile


def parse_image_size(text: str) -> tuple[int, int]:
    """``224`` or ``256x192`` as (height, width) in pixels.

    Raises:
        typer.BadParameter: The text is neither.
    """
    match = re.fullmatch(r"([0-9]+)(?:[xX]([0-9]+))?", text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a size; say 224 or HEIGHTxWIDTH", param_hint="'--image-size'"
        )
    return int(match[1]), int(match[2] or match[1])


def parse_batch(text: str) -> int | None:
    """``dynamic`` as None, or a number.

    Raises:
        typer.BadParameter: The text is neither.
    """
    if text == "dynamic":
        return None
    if not re.fullmatch(r"-?[0-9]+", text):
        raise typer.BadParameter(
            f"{text!r} is not a batch size; say dynamic or a number", param_hint="'--batch'"
        )
    return int(text)


_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """``512MiB``, ``4GiB`` or a number of bytes as bytes.

    Raises:
        typer.BadParameter: The text is none of these.
    """
    match = re.fullmatch(r"([0-9]+)\s*([a-zA-Z]*)", text)
    if match is None or match[2].upper() not in _UNITS:
        raise typer.BadParameter(
            f"{text!r} is not a size; say 512MiB, 4GiB or a number of bytes", param_hint="'--workspace'"
        )
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_profile(text: str) -> BatchProfile:
    """``MIN:OPT:MAX`` or one number as a profile of batch sizes.

    Raises:
        typer.BadParameter: The text is neither, or not in order.
    """
    from riformer_deploy.bundle.engine_metadata import BatchProfile

    match = re.fullmatch(r"([0-9]+)(?::([0-9]+):([0-9]+))?", text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a profile; say MIN:OPT:MAX, such as 1:8:32, or one number",
            param_hint="'--profile'",
        )
    low, middle, high = (int(number or match[1]) for number in match.groups())
    if not 1 <= low <= middle <= high:
        raise typer.BadParameter(
            f"{text!r} is not a profile: it must be 1 <= MIN <= OPT <= MAX", param_hint="'--profile'"
        )
    return BatchProfile(minimum=low, optimum=middle, maximum=high)


def parse_output(text: str) -> tuple[OutputForm, int]:
    """``logits``, ``probabilities``, ``features`` or ``topk=K`` as the form and K (5 where it has none).

    Raises:
        typer.BadParameter: The text is none of these.
    """
    if text in {OutputForm.LOGITS, OutputForm.PROBABILITIES, OutputForm.FEATURES}:
        return OutputForm(text), 5
    match = re.fullmatch(r"topk=([1-9][0-9]*)", text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no output; say logits, probabilities, features or topk=K",
            param_hint="'--output-form'",
        )
    return OutputForm.TOPK, int(match[1])


def parse_out_indices(text: str) -> tuple[int, ...]:
    """``0,2,4,6`` as positions.

    Raises:
        typer.BadParameter: The text is no such list.
    """
    if not re.fullmatch(r"-?[0-9]+(,-?[0-9]+)*", text):
        raise typer.BadParameter(f"{text!r} is no list of positions; say 0,2,4,6, the four stages")
    return tuple(int(number) for number in text.split(","))


def parse_percent(text: str, option: str) -> float:
    """``5%`` or ``5`` as 5.

    Args:
        text: As given.
        option: Its name, for the message.

    Raises:
        typer.BadParameter: The text is neither.
    """
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a percentage; say 5%", param_hint=f"'{option}'") from None
