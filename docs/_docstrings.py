"""Docstrings and signatures as Markdown, read from the source so that they are as they were written."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^([\w*.]+): (.*)$", re.DOTALL)
_TITLES = {"Args": "Arguments", "Attributes": "Fields"}
_WIDTH = 100

Definition = ast.FunctionDef | ast.ClassDef


def markdown(text: str) -> str:
    """Text of a docstring with Sphinx roles and double backticks as Markdown code."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def cell(text: str) -> str:
    """One line that may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def sections(docstring: str) -> tuple[str, dict[str, list[str]]]:
    """A Google-style docstring as its prose and the entries of each section, unwrapped and as Markdown."""
    prose: list[str] = []
    found: dict[str, list[str]] = {}
    entries: list[str] | None = None
    for line in inspect.cleandoc(docstring).splitlines():
        title = _SECTION.match(line)
        if title:
            entries = found.setdefault(title[1], [])
        elif entries is None or (line and not line.startswith(" ")):
            entries = None
            prose.append(line)
        elif re.match(r" {4}\S", line):
            entries.append(line.strip())
        elif line.strip():
            entries[-1] += f" {line.strip()}"
    text = markdown("\n".join(prose).strip())
    return text, {name: [markdown(entry) for entry in lines] for name, lines in found.items()}


def as_markdown(docstring: str) -> list[str]:
    """A whole docstring as lines of Markdown, a list for each section."""
    prose, found = sections(docstring)
    lines = [prose]
    for name, entries in found.items():
        lines += ["", f"{_TITLES.get(name, name)}:", ""]
        if name in {"Returns", "Yields"}:
            lines.append(" ".join(entries))
            continue
        for entry in entries:
            named = _ENTRY.match(entry)
            lines.append(f"- `{named[1]}`: {named[2]}" if named else f"- {entry}")
    return lines


def fields_of(kind: type) -> dict[str, str]:
    """What a record's docstring says of each field, as Markdown."""
    entries = sections(kind.__doc__ or "")[1].get("Attributes", [])
    return {named[1]: named[2] for named in map(_ENTRY.match, entries) if named}


@functools.cache
def module_tree(name: str) -> ast.Module:
    """The syntax tree of an imported module."""
    return ast.parse(inspect.getsource(sys.modules[name]))


def definition(thing: type | object) -> Definition:
    """The statement that defines a function or class of a module's top level."""
    name, module = getattr(thing, "__name__", ""), getattr(thing, "__module__", "")
    for node in module_tree(module).body:
        if isinstance(node, Definition) and node.name == name:
            return node
    raise LookupError(f"{module} does not define {name} at its top level")


def attribute_docstrings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr, str]]:
    """Every assignment to a name in a class or module: the name, its value and the docstring below it."""
    for index, node in enumerate(body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            below = body[index + 1] if index + 1 < len(body) else None
            told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            text = str(below.value.value) if told else ""  # type: ignore[union-attr]  # told says so
            yield node.targets[0].id, node.value, text


def signature(node: ast.FunctionDef) -> str:
    """``name(arguments) -> type``, one argument a line where it is long."""
    given = node.args
    parts: list[str] = []
    positional = [*given.posonlyargs, *given.args]
    missing = len(positional) - len(given.defaults)
    for index, argument in enumerate(positional):
        if argument.arg not in {"self", "cls"}:
            parts.append(_argument(argument, given.defaults[index - missing] if index >= missing else None))
    if given.vararg:
        parts.append(f"*{_argument(given.vararg, None)}")
    elif given.kwonlyargs:
        parts.append("*")
    parts += [_argument(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        parts.append(f"**{_argument(given.kwarg, None)}")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({', '.join(parts)}){result}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{node.name}(", *(f"    {part}," for part in parts), f"){result}"])


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg + (f": {ast.unparse(argument.annotation)}" if argument.annotation else "")
    if default is None:
        return text
    return f"{text}{' = ' if argument.annotation else '='}{ast.unparse(default)}"
