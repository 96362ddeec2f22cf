"""The names of a package, listed once in its stub file and imported when they are first used."""

from __future__ import annotations

import importlib
from _ast import ImportFrom, Module, PyCF_ONLY_AST
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def read_stub(stub: Path) -> dict[str, str]:
    """The module of each name that a stub file re-exports (``from MODULE import NAME as NAME``).

    ``ast`` would cost three times as much to import as a stub costs to parse, so the compiler is called.

    Raises:
        OSError: The stub cannot be read, as where it was not installed with the package.
    """
    tree = compile(stub.read_bytes(), str(stub), "exec", PyCF_ONLY_AST)
    assert isinstance(tree, Module)  # noqa: S101  # what the flag asks for
    return {
        name.name: node.module
        for node in tree.body
        if isinstance(node, ImportFrom) and node.module
        for name in node.names
        if name.asname == name.name
    }


def attach(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562) that imports a public name from its module.

    Args:
        package: Name of the package, for the error about a name that is not public.
        homes: Module of each public name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get
