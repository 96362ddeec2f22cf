"""Hostile and broken inputs, drawn with a seed: a sample in `make test`, all of them by `make battery`."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator


def cases(sample: int, everything: int) -> Iterator[random.Random]:
    """One generator a case, each with a seed of its own, so that a case can be repeated alone.

    Args:
        sample: Cases of `make test`.
        everything: Cases of `make battery`, which sets ``BATTERY``; its value is the first seed.
    """
    asked = os.environ.get("BATTERY", "")
    first = int(asked or 0)
    for seed in range(first, first + (everything if asked else sample)):
        yield random.Random(seed)  # noqa: S311 (what to break is no secret)
