"""The page of the public names: signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import Any

from _docstrings import as_markdown, attribute_docstrings, definition, module_tree, signature

import riformer_deploy


def python_page() -> list[str]:
    """The public names with signatures and docstrings."""
    names = sorted(vars(riformer_deploy)["__all__"])
    found = {name: getattr(riformer_deploy, name) for name in names}
    groups = {
        "Functions": [n for n, thing in found.items() if inspect.isfunction(thing)],
        "Classes": [n for n, thing in found.items() if inspect.isclass(thing)],
        "Constants and types": [n for n, thing in found.items() if not callable(thing)],
    }
    lines = [
        "# Python",
        "",
        "Every public name is imported from `riformer_deploy`, and loads when it is first used.",
        "",
    ]
    for title, members in groups.items():
        lines += [f"- {title}: " + ", ".join(f"[`{name}`](#{name.lower()})" for name in members)]
    for title, members in groups.items():
        lines += ["", f"## {title}"]
        for name in members:
            lines += ["", f"### {name}", ""]
            lines += _constant(name) if not callable(found[name]) else _defined(found[name])
    return lines


def _constant(name: str) -> list[str]:
    for module in sorted(item for item in sys.modules if item.startswith("riformer_deploy.")):
        for assigned, value, text in attribute_docstrings(module_tree(module).body):
            if assigned == name:
                told = ["", *as_markdown(text)] if text else []
                return ["```text", f"{name} = {ast.unparse(value)}", "```", *told]
    raise LookupError(f"no module assigns {name}")


def _defined(thing: Any) -> list[str]:
    node = definition(thing)
    if isinstance(node, ast.FunctionDef):
        return ["```text", signature(node), "```", "", *as_markdown(ast.get_docstring(node) or "")]
    bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
    lines = ["```text", f"class {node.name}{bases}"]
    lines += [f"    {ast.unparse(item)}" for item in node.body if isinstance(item, ast.AnnAssign)]
    lines += [
        f"    {name} = {ast.unparse(value)}"
        for name, value, _ in attribute_docstrings(node.body)
        if name[0] != "_"
    ]
    lines += ["```", "", *as_markdown(ast.get_docstring(node) or "")]
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or (
            method.name.startswith("_") and method.name != "__init__"
        ):
            continue
        told = ast.get_docstring(method)
        if method.name == "__init__" or not told:
            continue
        lines += [
            "",
            f"#### {node.name}.{method.name}",
            "",
            "```text",
            _method(method),
            "```",
            "",
            *as_markdown(told),
        ]
    return lines


def _method(node: ast.FunctionDef) -> str:
    marks = {ast.unparse(item) for item in node.decorator_list}
    if "property" in marks and node.returns is not None:
        return f"{node.name}: {ast.unparse(node.returns)}"
    return ("@classmethod\n" if "classmethod" in marks else "") + signature(node)
