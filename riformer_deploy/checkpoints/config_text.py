"""Reads the literals of a config's Python text; nothing in it is executed.

The text is parsed with :mod:`ast`, and what is no literal is known as such, not taken for what is absent.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from riformer_deploy.checkpoints.config_values import is_key


@dataclass(frozen=True)
class Unread:
    """A value that is no literal: it is not evaluated, and must not be taken for one that was not stored."""

    def __repr__(self) -> str:
        return "an expression that is not evaluated"


UNREAD = Unread()


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """The literal that an expression spells, ``dict(...)`` calls included; ``UNREAD`` where it is none."""
    value: Any = UNREAD
    match node:
        case ast.Constant():
            value = node.value
        case ast.List() | ast.Tuple():
            value = [_value(item, known) for item in node.elts]
        case ast.Dict() if all(isinstance(key, ast.Constant) and is_key(key.value) for key in node.keys):
            value = {
                key.value: _value(item, known)
                for key, item in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
        case ast.Call(func=ast.Name(id="dict"), args=[]) if all(word.arg for word in node.keywords):
            value = {word.arg: _value(word.value, known) for word in node.keywords}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            value = -number
        case ast.Name():
            value = known.get(node.id, UNREAD)
        case _:  # calls and arithmetic are not evaluated
            pass
    return value


MOST_CHARACTERS = 1_000_000
"""Of a config; mmengine's longest have some ten thousand."""


def too_long(text: str) -> str | None:
    """Why a text is too long to be read as a config; None where it is not."""
    if len(text) <= MOST_CHARACTERS:
        return None
    return f"the stored config has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read"


def assignments(text: str) -> dict[str, Any]:
    """The values of the names that a text assigns at its top level.

    Args:
        text: Content of ``meta['cfg']``.

    Returns:
        None of them where it is not Python, or longer than :data:`MOST_CHARACTERS`, which the check of its
        settings refuses.
    """
    if too_long(text) is not None:
        return {}
    try:
        statements = ast.parse(text).body
        return _assigned(statements)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _assigned(statements: list[ast.stmt]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known[name] = _value(value, known)
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                continue
            case _:  # a condition, a call, an assignment to an item: what it touches is no longer known
                touched = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
                for node in touched:
                    if node.id in known or isinstance(node.ctx, ast.Store):
                        known[node.id] = UNREAD
    return known
