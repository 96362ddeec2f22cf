"""Writes a config's values as Python text, as mmengine stores it in a checkpoint."""

from __future__ import annotations

import math
from typing import Any

from riformer_deploy.checkpoints.config_values import UNREAD

_MOST_VALUES = 100_000
_MOST_CHARACTERS = 10_000_000


class Speller:
    """Writes values as expressions that :mod:`config_text` reads; what no literal spells as a call."""

    def __init__(self) -> None:
        self._values, self._characters = 0, 0

    def spelled(self, value: Any) -> str:
        """One value; raises ValueError where all so far are more than is read."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values")
        match value:
            case dict():
                pairs = (f"{self._literal(key)}: {self.spelled(item)}" for key, item in value.items())
                return "{" + ", ".join(pairs) + "}"
            case list():
                return "[" + ", ".join(self.spelled(item) for item in value) + "]"
            case float() if not math.isfinite(value):
                return repr(UNREAD)
            case int() if abs(value) >= 10**30:
                return repr(UNREAD)
            case _:
                return self._literal(value)

    def _literal(self, value: Any) -> str:
        if isinstance(value, int) and abs(value) >= 10**30:
            return repr(UNREAD)
        text = repr(value)
        self._characters += len(text)
        if self._characters > _MOST_CHARACTERS:
            raise ValueError(f"it holds more than {_MOST_CHARACTERS:,} characters")
        return text
