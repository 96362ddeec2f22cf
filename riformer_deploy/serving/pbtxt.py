"""Protocol buffers' text format, written: what Triton reads a model's configuration from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Union


class Symbol(str):
    """The name of an enum's value, which is written without quotes."""

    __slots__ = ()


Value = Union[str, int, bool, "Message", Sequence["Value"]]
"""A field's value; a sequence is a repeated field."""
Message = Mapping[str, Value]
"""A message, by field."""


def render(message: Message) -> str:
    """A message as text, a field a line, in the order given.

    Args:
        message: The fields; an empty repeated field writes nothing.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _block(name, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for item in value:
                yield from _lines({name: item})
        else:
            yield f"{name}: {_scalar(value)}"


def _block(name: str, message: Message) -> Iterator[str]:
    inner = [f"  {line}" for line in _lines(message)]
    yield from [f"{name} {{", *inner, "}"] if inner else [f"{name} {{}}"]


def _scalar(value: str | int) -> str:  # a bool is an int
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # JSON's escapes of quotes, backslashes and control characters are protocol buffers' own.
    return json.dumps(value, ensure_ascii=False)
