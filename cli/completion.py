"""What a shell offers for the value of an option or argument; files are the shell's own to offer."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


def published_names(incomplete: str) -> list[str]:
    """Published models; none where a file is about to be named."""
    from riformer_deploy.model.variants import VARIANTS

    return [name for name in VARIANTS if name.startswith(incomplete)]


def of_list(choices: type[StrEnum]) -> Callable[[str], list[str]]:
    """Completes the last of values with commas between them, such as ``fp32,f``."""

    def complete(incomplete: str) -> list[str]:
        given, comma, last = incomplete.rpartition(",")
        used = given.split(",")
        return [f"{given}{comma}{item}" for item in choices if item.startswith(last) and item not in used]

    return complete
