"""What commands print: data on stdout, progress and messages on stderr.

Nothing is printed but by this module, which makes text of others harmless for a terminal
(:func:`~riformer_deploy.common.display.displayed`).
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from riformer_deploy.common.display import displayed

from .progress import counter, progress
from .streams import Verbosity, console, tell, verbosity

__all__ = [
    "counter",
    "exit_for_unusable",
    "is_narrow",
    "is_verbose",
    "next_step",
    "note",
    "number",
    "print_error",
    "print_interrupted",
    "print_json",
    "print_table",
    "progress",
    "say",
    "set_up_logging",
]

_LONGEST_CELL = 1000
_WIDE = 110


def is_narrow() -> bool:
    """Whether a table on stdout has to leave out what other figures tell, as on a screen of 80 columns."""
    return console(stderr=False).width < _WIDE


def print_json(record: object) -> None:
    """One record as JSON on stdout."""
    from riformer_deploy.common.serialization import dump_json

    sys.stdout.write(json.dumps(json.loads(dump_json(record)), indent=2) + "\n")


def print_error(kind: str, exit_code: int, message: str, *, as_json: bool) -> None:
    """An error on stderr, and as JSON on stdout where JSON was asked for."""
    if as_json:
        sys.stdout.write(
            json.dumps({"error": {"kind": kind, "exit_code": exit_code, "message": message}}, indent=2) + "\n"
        )
    tell(f"error: {message}")


_COLOURS = {"passed": "green", "ok": "green", "failed": "red", "unusable": "red", "missing": "yellow"}
"""Of a verdict, on a terminal; Rich honours NO_COLOR."""
_VERDICT = re.compile(r"^[A-Z][a-z]+: (passed|failed)\b")


def say(text: str) -> None:
    """A line on stdout; a verdict in it, as ``Parity: passed``, has its colour on a terminal."""
    shown = displayed(text)
    if (verdict := _VERDICT.match(shown)) is not None and sys.stdout.isatty():
        from rich.text import Text

        coloured = Text(shown)
        coloured.stylize(_COLOURS[verdict[1]], *verdict.span(1))
        console(stderr=False).print(coloured, soft_wrap=True)
        return
    sys.stdout.write(shown + "\n")


def note(text: str) -> None:
    """A line for the user on stderr, unless ``-q`` was given."""
    if verbosity() is not Verbosity.QUIET:
        tell(f"note: {text}")


def is_verbose() -> bool:
    """Whether ``-v`` asked for all there is to tell."""
    return verbosity() is Verbosity.VERBOSE


class _LogFormatter(logging.Formatter):
    """Log lines as they may be printed."""

    def format(self, record: logging.LogRecord) -> str:
        return displayed(super().format(record))


def set_up_logging() -> None:
    """Show warnings of the library, and of those that it uses, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def next_step(*words: object) -> None:
    """One line on stderr, unless ``-q`` was given: the command that is the next one as a rule.

    Args:
        words: The command's arguments; what a shell would take apart is quoted.
    """
    if verbosity() is not Verbosity.QUIET:
        tell(f"Next: riformer-deploy {shlex.join(map(str, words))}")


def print_interrupted(kept: Sequence[str], words: Sequence[str]) -> None:
    """Say on stderr what an interrupted command leaves, and the command that goes on.

    Args:
        kept: What it kept; empty where it begins anew.
        words: Its arguments.
    """
    for text in kept or ["nothing half-written is left, and files from before are as they were"]:
        tell(f"interrupted: {text}")
    tell(f"{'To go on' if kept else 'To begin anew'}: riformer-deploy {shlex.join(words)}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout.

    Where the screen is too narrow, cells are folded, between words where that is enough.

    Args:
        title: Above it.
        columns: Their names; one that begins with ``>`` is aligned to the right; its cells are never folded,
            nor are those of one that begins with ``!``.
        rows: Cells.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=displayed(title, lines=False) or None,
        title_justify="left",
        show_header=any(column.strip("<>!") for column in columns),
    )
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(
            column.lstrip("!>"), justify=side, overflow="fold", no_wrap=column.startswith((">", "!"))
        )
    for row in rows:
        table.add_row(
            *(
                # figures are ours and may take two lines; words may be of others
                Text(
                    displayed(cell, longest=_LONGEST_CELL, lines=column.startswith(">")),
                    style=_COLOURS.get(cell, ""),
                )
                for column, cell in zip(columns, row, strict=True)
            )
        )
    console(stderr=False).print(table)


def print_pairs(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Names and values on stdout, as a table; values whose words are wider than the screen stand below it.

    Args:
        title: Above it, on a line of its own.
        rows: Names and values. No name, hash or path in them is broken, whatever the width of the screen.
    """
    from rich.cells import cell_len

    cells = [
        (displayed(name, lines=False), displayed(value, longest=_LONGEST_CELL, lines=False))
        for name, value in rows
    ]
    room = console(stderr=False).width - max((cell_len(name) for name, _ in cells), default=0) - _FRAME
    wide = [row for row in cells if any(cell_len(word) > room for word in row[1].split())]
    say(title)
    if len(wide) < len(cells):
        print_table("", ("!", ""), [row for row in cells if row not in wide])
    for name, value in wide:
        say(f"{name}: {value}")


_FRAME = 7
"""What a table of two columns takes beside its cells."""


def exit_for_unusable(reasons: Sequence[str]) -> None:
    """Name the pictures that could not be used, on stderr, and exit with the code that says so.

    What could be used was printed before; nothing happens where there is nothing to name.
    """
    if not reasons:
        return
    import typer

    from riformer_deploy.common.errors import ImageError

    for reason in reasons:
        tell(f"not used: {reason}")
    tell(f"error: {pictures(len(reasons))} could not be used")
    raise typer.Exit(ImageError.exit_code)


def pictures(count: int) -> str:
    """So many pictures, in words."""
    return f"{count} picture" if count == 1 else f"{count} pictures"


def number(value: float | None, form: str = ".2e") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)
