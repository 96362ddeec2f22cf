"""Options that come from variables of the environment and from a file, with the names of the command line.

Where one is set in several places the command line goes first, then the environment, then the file.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from riformer_deploy.common.errors import OptionError
from riformer_deploy.common.files import read_regular
from riformer_deploy.common.foreign_data import reason_of

PREFIX = "RIFORMER_DEPLOY"
_MOST_BYTES = 2**20
_MISSPELT = 0.85
"""A variable that is so alike to one of ours is taken for a misspelt one; what merely has our prefix, such as
the variables of a service in a cluster, is somebody else's."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value that is not from the command line.

    Attributes:
        option: Long name, such as ``--max-seconds``.
        origin: The variable, or the file and the key.
        value: As click takes it from a map of defaults.
        shown: As it was written.
    """

    option: str
    origin: str
    value: object
    shown: str


def long_name(option: Any) -> str:
    """``--max-seconds`` of an option of click."""
    return next((name for name in option.opts if name.startswith("--")), str(option.opts[0]))


def settable(command: Any) -> dict[str, Any]:
    """The options of a command that have a value, by key, such as ``max-seconds``; not ``--help``."""
    return {
        long_name(option).lstrip("-"): option
        for option in command.params
        if option.param_type_name == "option" and option.allow_from_autoenv
    }


def variable_prefix(path: Iterable[str]) -> str:
    """``RIFORMER_DEPLOY_VERIFY_PARITY`` of ``("verify", "parity")``."""
    return "_".join([PREFIX, *path]).replace("-", "_").upper()


def variables(command: Any, path: Iterable[str]) -> dict[str, Any]:
    """The options of a command by the names of their variables."""
    prefix = variable_prefix(path)
    return {f"{prefix}_{key}".replace("-", "_").upper(): option for key, option in settable(command).items()}


def from_environment(command: Any, path: Iterable[str]) -> dict[str, Setting]:
    """What variables set, by the parameter's name; an empty one sets nothing.

    Args:
        command: Of click.
        path: Its name, in words.
    """
    found = {}
    for name, option in variables(command, path).items():
        if text := os.environ.get(name, ""):
            value = text.split() if option.multiple else text
            found[option.name] = Setting(option=long_name(option), origin=name, value=value, shown=text)
    return found


def refuse_misspelt_variables(root: Any) -> None:
    """Refuse variables that are meant for a command and name none of its options.

    Args:
        root: The command line's outermost command, of click.

    Raises:
        OptionError: There are such.
    """
    ours = [name for name in os.environ if name.startswith(f"{PREFIX}_")]
    if not ours:
        return
    tree = list(_tree(root, ()))
    known = {name for path, command in tree for name in variables(command, path)}
    prefixes = tuple(
        f"{variable_prefix(path)}_" for path, command in tree if not hasattr(command, "commands")
    )
    keys = [name.removeprefix(PREFIX) for name in known]  # what all have in common makes nothing alike
    meant = [
        name
        for name in sorted(set(ours) - known)
        if name.startswith(prefixes) or _nearest(name.removeprefix(PREFIX), keys, cutoff=_MISSPELT)
    ]
    if meant:
        raise OptionError(
            "Variables of the environment are named like options that do not exist.",
            details=[f"{name}{_suggestion(name, known)}" for name in meant],
            remedy="Correct their names, or unset them.",
        )


def _tree(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _tree(child, (*path, name))


def from_file(file: Path, root: Any, path: Iterable[str]) -> dict[str, Setting]:
    """What a file sets for a command, by the parameter's name. The tables of all commands are checked.

    Args:
        file: TOML, with a table for each command, such as ``[export]`` and ``[verify.parity]``.
        root: The command line's outermost command, of click.
        path: The command's name, in words.

    Raises:
        OptionError: The file cannot be read or is no TOML; or it names commands or options that do not exist,
            or has values of another type.
    """
    import tomllib

    try:
        tables = tomllib.loads(read_regular(file, _MOST_BYTES).decode("utf-8"))
    except OSError as err:
        raise OptionError(f"The file of options {file} cannot be read: {err.strerror}.") from err
    except (ValueError, RecursionError) as err:  # Python's parser of TOML calls itself for what is nested
        raise OptionError(f"The file of options {file} is no TOML: {reason_of(err)}") from err
    problems = list(_problems(tables, root, ()))
    if problems:
        raise OptionError(
            f"The file of options {file} cannot be used.",
            details=problems,
            remedy="Keys are the long names of options without the dashes; `riformer-deploy COMMAND "
            "--help-all` lists them.",
        )
    words, command, table = tuple(path), root, tables
    for word in words:
        command, table = command.commands[word], table.get(word, {})
    options, kinds = settable(command), _kinds(command)
    return {
        options[key].name: Setting(
            option=long_name(options[key]),
            origin=f"[{'.'.join(words)}] {key} of {file}",
            value=_converted(options[key], kinds.get(options[key].name, _Kind.FLAG), value),
            shown=str(value),
        )
        for key, value in table.items()
    }


def _problems(table: Mapping[str, Any], command: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Everything that is wrong with the table of a group or a command."""
    if hasattr(command, "commands"):
        for name, inner in table.items():
            where = ".".join((*path, name))
            if name not in command.commands:
                known = ".".join(path) or "riformer-deploy"
                yield f"{where}: {known} has no command of that name{_suggestion(name, command.commands)}"
            elif not isinstance(inner, dict):
                yield f"{where}: expected a table, [{where}], got {_kind(inner)}"
            else:
                yield from _problems(inner, command.commands[name], (*path, name))
        return
    options, kinds = settable(command), _kinds(command)
    for key, value in table.items():
        where = f"[{'.'.join(path)}] {key}"
        if key not in options:
            yield f"{where}: there is no such option{_suggestion(key, options)}"
        elif (
            expected := _mismatch(options[key], kinds.get(options[key].name, _Kind.FLAG), value)
        ) is not None:
            yield f"{where}: expected {expected}, got {_kind(value)}"


class _Kind(Enum):
    """What the value of an option is."""

    FLAG = "true or false"
    INTEGER = "an integer"
    FLOAT = "a number"
    TEXT = "a string"
    NAME = "a string "
    """One of several, or a path."""


def _kinds(command: Any) -> dict[str, _Kind]:
    """The kinds of a command's own options, by the parameter's name, as its function states them.

    Typer's parameters say it too, but in each of its versions in another way.
    """
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    of = {bool: _Kind.FLAG, int: _Kind.INTEGER, float: _Kind.FLOAT, str: _Kind.TEXT}
    return {name: of.get(_plain_type(hint), _Kind.NAME) for name, hint in hints.items()}


def _plain_type(hint: Any) -> Any:
    """``int`` of ``int | None`` and of ``list[int] | None``."""
    inner = [item for item in typing.get_args(hint) if item is not type(None)]
    return _plain_type(inner[0]) if inner else hint


def _mismatch(option: Any, kind: _Kind, value: object) -> str | None:
    """What was expected where a value is of another type."""
    one = kind.value.strip()
    if option.multiple:
        values = value if isinstance(value, list) else [value]
        return None if all(_fits(kind, item) for item in values) else f"{one}, or an array of such"
    return None if _fits(kind, value) else one


def _fits(kind: _Kind, value: object) -> bool:
    if kind is _Kind.FLAG or isinstance(value, bool):
        return kind is _Kind.FLAG and isinstance(value, bool)
    if kind is _Kind.INTEGER:
        return isinstance(value, int)
    if kind is _Kind.FLOAT:
        return isinstance(value, (int, float))
    # a size or a batch may be written as the number that it is
    return isinstance(value, str) or (kind is _Kind.TEXT and isinstance(value, (int, float)))


def _converted(option: Any, kind: _Kind, value: Any) -> object:
    """A value as click takes it: texts for what it parses itself."""
    if option.multiple:
        return [_converted_one(kind, item) for item in (value if isinstance(value, list) else [value])]
    return _converted_one(kind, value)


def _converted_one(kind: _Kind, value: object) -> object:
    return str(value) if kind is _Kind.TEXT and not isinstance(value, bool) else value


def _kind(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value!r}"
        case list():
            return f"the array {value!r}"
        case dict():
            return "a table"
        case _:
            return f"{value} ({type(value).__name__})"


def _nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = _nearest(word, known)
    return "" if near is None else f". Did you mean {near}?"
