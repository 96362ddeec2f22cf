"""Records and enums as tables: every one that a type leads to, with its fields, types and docstrings."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from _docstrings import attribute_docstrings, cell, definition, fields_of, markdown, sections

_PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", types.NoneType: "null"}


class Records:
    """Every record and enum that some types lead to, each once."""

    def __init__(self, hints: Iterable[Any]) -> None:
        self._kinds: dict[type, None] = {}
        for hint in hints:
            self._collect(hint)
        self._uses = Counter(kind.__name__ for kind in self._kinds)

    def _collect(self, hint: Any) -> None:
        if get_args(hint):
            for argument in get_args(hint) if get_origin(hint) is not Literal else ():
                self._collect(argument)
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint not in self._kinds:
            self._kinds[hint] = None
            for inner in typing.get_type_hints(hint).values():
                self._collect(inner)
        elif isinstance(hint, type) and issubclass(hint, Enum):
            self._kinds[hint] = None

    def title(self, kind: type) -> str:
        """The class name, with the module where two classes have that name."""
        if self._uses[kind.__name__] == 1:
            return kind.__name__
        return f"{kind.__name__} of {kind.__module__.rpartition('.')[2]}"

    def type(self, hint: Any) -> str:
        """A type in JSON's words; records are links.

        Raises:
            LookupError: A record has no words for it.
        """
        origin, inner = get_origin(hint), get_args(hint)
        if hint in self._kinds:
            title = self.title(hint)
            return f"[{title}](#{title.lower().replace(' ', '-')})"
        if hint in _PLAIN:
            return _PLAIN[hint]
        if origin is Literal:
            return " or ".join(f'`"{value}"`' for value in inner)
        if origin in {typing.Union, types.UnionType}:
            return " or ".join(map(self.type, inner))
        return self._container(hint)

    def _container(self, hint: Any) -> str:
        origin, inner = get_origin(hint), get_args(hint)
        if origin is tuple and inner[-1] is not Ellipsis:
            return f"list of {', '.join(map(self.type, inner))}"
        if origin in {tuple, list}:
            text = self.type(inner[0])
            return f"list of ({text})" if " or " in text else f"list of {text}"
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return f"object of {self.type(inner[1])} by name"
        raise LookupError(f"no words for {hint}")

    def sections(self) -> list[str]:
        """A section for each, by name, as lines of Markdown."""
        lines: list[str] = []
        for kind in sorted(self._kinds, key=self.title):
            lines += ["", f"## {self.title(kind)}", "", sections(kind.__doc__ or "")[0], ""]
            lines += _members(kind) if issubclass(kind, Enum) else self._fields(kind)
        return lines

    def _fields(self, kind: Any) -> list[str]:
        hints, told = typing.get_type_hints(kind), fields_of(kind)
        lines = ["| field | type | meaning |", "|---|---|---|"]
        for field in dataclasses.fields(kind):
            meaning = told.get(field.name, "")
            if field.default is not dataclasses.MISSING:
                meaning += f" Default: `{_json(field.default)}`."
            lines.append(f"| `{field.name}` | {cell(self.type(hints[field.name]))} | {cell(meaning)} |")
        return lines


def _json(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, str):
        return f'"{value.value if isinstance(value, Enum) else value}"'
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value in {True, False}
        else str(value)
    )


def _members(kind: type[Enum]) -> list[str]:
    told = {name: text for name, _, text in attribute_docstrings(definition(kind).body)}
    lines = []
    for member in kind:
        text = " ".join(markdown(told.get(member.name, "")).split())
        lines.append(f'- `"{member.value}"`' + (f": {text}" if text else ""))
    return lines
