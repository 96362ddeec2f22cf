"""Values of a config: what is unread, how they are laid over each other, and how much of it there may be."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

_LARGEST_KEY = 2**63


class Unread:
    """A value that only running the file would tell."""

    def __deepcopy__(self, _memo: object) -> Unread:
        return self

    def __repr__(self) -> str:
        return "unread()"  # an expression, so that a parser of the text does not evaluate it either


UNREAD = Unread()


class Budget:
    """How much more work a config may make; lists that hold themselves twice grow without end otherwise.

    Args:
        steps: Values that may be looked at, copied or merged.
    """

    def __init__(self, steps: int = 2_000_000) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps; raises ValueError where none are left."""
        self._left -= steps
        if self._left < 0:
            raise ValueError("it makes more values than any config needs")

    def copied(self, value: Any) -> Any:
        """A deep copy."""
        self.spend(sum(1 + len(part) for part in containers(value)))
        return copy.deepcopy(value)


def merged(new: dict[Any, Any], base: dict[Any, Any], budget: Budget) -> dict[Any, Any]:
    """``new`` over ``base`` as mmengine lays it: dictionaries merge, ``_delete_=True`` replaces one whole."""
    budget.spend(len(new) + len(base) + 1)
    result = dict(base)
    for key, value in new.items():
        before = base.get(key)
        if isinstance(value, dict) and "_delete_" in value:
            result[key] = {name: item for name, item in value.items() if name != "_delete_"}
        elif isinstance(value, dict) and isinstance(before, dict):
            result[key] = merged(value, before, budget)
        else:
            result[key] = value
    return result


def update(target: dict[Any, Any], new: dict[Any, Any], budget: Budget) -> None:
    """``ConfigDict.update``, which merges in place."""
    budget.spend(len(new) + 1)
    for key, value in list(new.items()):  # a list, since a dictionary may be merged into itself
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            update(target[key], value, budget)
        else:
            target[key] = value


def containers(value: Any) -> Iterator[Any]:
    """Every list and dictionary within a value, itself included, each once."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, dict)) and id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting.extend(item.values() if isinstance(item, dict) else item)


def is_key(value: Any) -> bool:
    """Whether a literal may be a dictionary's key: great integers can be chosen to have equal hashes."""
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < _LARGEST_KEY)
