"""What all commands have in common: help in groups, ``-q`` and ``-v``, options from elsewhere, Ctrl-C.

A command needs to register nothing for it: :class:`App` makes every command a :class:`Command`. Typer has no
public names for click's contexts and parameters, and newer versions may bring their own: hence ``Any``.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from riformer_deploy.common.errors import OptionError

from . import output, settings
from .command_list import CommandEntry
from .lazy_commands import LazyCommands
from .panels import GENERAL, Rare
from .streams import Verbosity, ask_json, choose_verbosity

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for a wrong command line; it has no public name of its own there."""

_ON_ONE_PAGE = 16
"""Options that a command may have for all of them to be shown at once, in one list."""
_HELP_ALL = "--help-all"
_SETTINGS = f"{__name__}.settings"
_EVERYTHING = f"{__name__}.everything"


class App(typer.Typer):
    """Typer, with commands of our own kind."""

    def command(self, *args: Any, **kwargs: Any) -> Any:
        """As Typer's."""
        return super().command(*args, cls=Command, **kwargs)


def _show_everything(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_EVERYTHING] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _flags(
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", help="Say nothing but the result and errors.", rich_help_panel=GENERAL),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            help="Say more: what is logged, how long steps took, where options came from.",
            rich_help_panel=GENERAL,
        ),
    ] = False,
    help_all: Annotated[
        bool,
        typer.Option(
            _HELP_ALL,
            help="Show every option and exit.",
            rich_help_panel=GENERAL,
            expose_value=False,
            is_eager=True,
            callback=_show_everything,
            allow_from_autoenv=False,
        ),
    ] = False,
) -> None:
    """Nothing: its parameters are what all commands have."""


@functools.cache
def _common_flags() -> dict[str, Any]:
    """The flags that all commands have, by name, as Typer makes them of a function: it alone knows how."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_flags)
    return {param.name: param for param in typer.main.get_command(app).params if param.name}


def _common(params: Sequence[Any]) -> list[Any]:
    """``-q`` and ``-v``, but for a command that has one of that name itself."""
    taken = {param.name for param in params}
    return [_common_flags()[name] for name in ("quiet", "verbose") if name not in taken]


class Command(TyperCommand):
    """A command, with what all of them have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own = {param.name for param in self.params}
        self.params += _common(self.params)
        self.params.append(_common_flags()["help_all"])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click's, with what is set elsewhere."""
        found = _settings(ctx, args, file=ctx.find_root().params.get("config"))
        rest = _parsed(super().parse_args, ctx, args, found)
        _choose_verbosity(ctx, self._own)
        ask_json(asked=bool(ctx.params.get("json")))
        for setting in _in_force(ctx):
            if output.is_verbose():
                output.note(f"{setting.option} is {setting.shown}, from {setting.origin}")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """As click's; an error names the places where its options were set, an interruption what is kept."""
        try:
            return super().invoke(ctx)
        except (USAGE_ERROR, OptionError) as err:
            for setting in _concerned(str(getattr(err, "message", err)), _in_force(ctx)):
                err.add_note(f"{setting.option} is {setting.shown}, from {setting.origin}.")
            raise
        except KeyboardInterrupt as err:
            output.print_interrupted(getattr(err, "__notes__", ()), sys.argv[1:])
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options in their groups; rare ones only on the second page."""
        path = _path(ctx)
        arguments, options = _records(self, ctx)
        everything = ctx.meta.get(_EVERYTHING, False)
        paged = len(options) > _ON_ONE_PAGE
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        hidden = 0
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for panel, record in options:
            if record[0] == _HELP_ALL and not paged:
                continue
            if isinstance(panel, Rare) and paged and not everything:
                hidden += 1
            else:
                groups.setdefault((panel if paged else None) or "Options", []).append(record)
        general = groups.pop(GENERAL, [])
        for title, records in (*groups.items(), (GENERAL, general)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        formatter.write_paragraph()
        if hidden:
            more = "1 more option" if hidden == 1 else f"{hidden} more options"
            formatter.write_text(f"{more}: riformer-deploy {' '.join(path)} --help-all")
        formatter.write_text(
            f"Options may also stand in variables, {settings.variable_prefix(path)}_<OPTION>, or under "
            f"[{'.'.join(path)}] in a file: riformer-deploy --config FILE.toml {' '.join(path)} ..."
        )


def _command_of(name: str, entry: CommandEntry) -> Any:
    module = importlib.import_module(f"{__package__}.commands.{entry.module}")
    app = App(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, epilog=f"Example: {entry.example}")(getattr(module, entry.function))
    return typer.main.get_command(app)


class Group(TyperGroup):
    """A command of commands, with what all of them have."""

    listed: ClassVar[Mapping[str, CommandEntry]] = {}
    """Those that are imported when they are asked for: most of the time that a command needs to start would
    go into importing the others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands = LazyCommands(self.commands, self.listed, _command_of)
        self._own = {param.name for param in self.params}
        self.params += _common(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click's, with what the environment sets."""
        found = _settings(ctx, args, file=None)
        if ctx.parent is None and found is not None:
            settings.refuse_misspelt_variables(self)
        rest = _parsed(super().parse_args, ctx, args, found)
        _choose_verbosity(ctx, self._own)
        return rest

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Each with all of its first sentence: a description that is cut tells little."""
        rows = [(name, self._summary(name)) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def list_commands(self, _ctx: Any) -> list[str]:
        """As Typer's, which would import each."""
        return list(self.commands)

    def _summary(self, name: str) -> str:
        if name in self.listed:
            return self.listed[name].summary
        return str(self.commands[name].help or "").split("\n\n")[0]


def _path(ctx: Any) -> tuple[str, ...]:
    """The command's name, in words, without the program's."""
    return () if ctx.parent is None else (*_path(ctx.parent), ctx.info_name)


def _settings(ctx: Any, args: Sequence[str], file: str | None) -> dict[str, settings.Setting] | None:
    """What is set elsewhere; None where help or completion is asked for, which nothing may stop."""
    if ctx.resilient_parsing or {*ctx.help_option_names, _HELP_ALL} & set(args):
        return None
    path = _path(ctx)
    found = settings.from_file(Path(file), ctx.find_root().command, path) if file is not None else {}
    return found | settings.from_environment(ctx.command, path)


def _parsed(parse: Any, ctx: Any, args: list[str], found: dict[str, settings.Setting] | None) -> list[str]:
    """Parse; an unusable value is refused by the name of the place that it is from."""
    ctx.default_map = {name: setting.value for name, setting in (found or {}).items()}
    ctx.meta[_SETTINGS] = found or {}
    try:
        rest: list[str] = parse(ctx, args)
    except USAGE_ERROR as err:
        wrong: Any = err
        name = str(getattr(getattr(err, "param", None), "name", None))
        setting = (found or {}).get(name)
        if setting is not None and _is_from_elsewhere(ctx, name):
            wrong.param_hint = f"{setting.origin} ({setting.option})"
        if getattr(err, "option_name", None) == "--config" and ctx.parent is not None:
            wrong.message += (
                ". A file of options stands before the command: riformer-deploy --config FILE ..."
            )
        raise
    return rest


def _is_from_elsewhere(ctx: Any, name: str) -> bool:
    return getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT_MAP"


def _in_force(ctx: Any) -> Iterator[settings.Setting]:
    """What is set elsewhere and not on the command line."""
    for name, setting in ctx.meta.get(_SETTINGS, {}).items():
        if _is_from_elsewhere(ctx, name):
            yield setting


def _concerned(message: str, found: Iterable[settings.Setting]) -> list[settings.Setting]:
    """The settings that a message names by option or value; all where it names none."""
    everything = list(found)
    named = [item for item in everything if item.option in message or item.shown in message]
    return named or everything


def _choose_verbosity(ctx: Any, own: set[str | None]) -> None:
    """Set how much is told, and take the flags from what the command's function gets."""
    asked = {name for name in ("quiet", "verbose") if ctx.params.get(name) is True}
    for name in {"quiet", "verbose"} - own:
        ctx.params.pop(name, None)
    if len(asked) > 1:  # the command line goes first
        asked = {name for name in asked if not _is_from_elsewhere(ctx, name)} or asked
    if len(asked) > 1:
        raise typer.BadParameter("-q and -v exclude each other", ctx=ctx)
    for name in asked:
        choose_verbosity(Verbosity.QUIET if name == "quiet" else Verbosity.VERBOSE)


def _records(
    command: Any, ctx: Any
) -> tuple[list[tuple[str, str]], list[tuple[str | None, tuple[str, str]]]]:
    """Name and text of every argument, and of every option with its group."""
    arguments, options = [], []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            arguments.append(record)
        else:
            panel = getattr(param, "rich_help_panel", None)
            options.append((GENERAL if param.name == "help" else panel, record))
    return arguments, options
