"""Commands that are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from .command_list import CommandEntry


class LazyCommands(MutableMapping[str, Any]):
    """Commands of click by name; a listed one is imported, and made of its function, when it is read."""

    def __init__(
        self,
        made: Mapping[str, Any],
        listed: Mapping[str, CommandEntry],
        make: Callable[[str, CommandEntry], Any],
    ) -> None:
        self._made, self._listed, self._make = dict(made), listed, make

    def __getitem__(self, name: str) -> Any:
        if name not in self._made and name in self._listed:
            self._made[name] = self._make(name, self._listed[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._listed

    def __iter__(self) -> Iterator[str]:
        return iter({**self._listed, **self._made})

    def __len__(self) -> int:
        return len({**self._listed, **self._made})
