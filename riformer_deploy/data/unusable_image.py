"""What results say of a picture that could not be used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UnusableImage:
    """A picture that could not be used.

    Attributes:
        image: Its path, or what else its source calls it.
        reason: Why not.
    """

    image: str
    reason: str
