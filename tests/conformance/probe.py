"""Says as JSON what real bindings offer; run in a process of its own: ``probe.py MODULE``."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def _text(member: Any) -> str:
    return str(getattr(getattr(member, "fget", member), "__doc__", None) or "")


def _described(thing: Any) -> dict[str, Any]:
    members = getattr(thing, "__members__", None)
    if members is not None:
        return {"enum": list(members)}
    names = [name for name in dir(thing) if not name.startswith("_")]
    return {name: _text(getattr(thing, name)) for name in [*names, "__init__"]}


def _null_pointers(module: Any) -> dict[str, str]:
    """What the constructors raise whose C functions give a null pointer."""

    class Logger(module.ILogger):  # type: ignore[misc]  # known when it is imported
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            pass

    found = {}
    logger = Logger()
    for name in ("Builder", "Runtime"):
        try:
            getattr(module, name)(logger)
        except TypeError as err:
            found[name] = str(err)
    return found


def main() -> None:
    """Print it."""
    module = importlib.import_module(sys.argv[1])
    classes = {name: getattr(module, name) for name in dir(module) if isinstance(getattr(module, name), type)}
    found = {
        "version": module.__version__,
        "classes": {name: _described(thing) for name, thing in classes.items()},
        "severities": list(module.ILogger.Severity.__members__),
        "null pointers": _null_pointers(module),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
