"""What commands print: data on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_PIPED = 160


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() else _WIDTH_PIPED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_json(record: object) -> None:
    """One record as JSON on stdout."""
    from riformer_deploy.records import dump_json

    sys.stdout.write(json.dumps(json.loads(dump_json(record)), indent=2) + "\n")


def print_error(kind: str, exit_code: int, message: str, *, as_json: bool) -> None:
    """An error on stderr, and as JSON on stdout where JSON was asked for."""
    if as_json:
        sys.stdout.write(
            json.dumps({"error": {"kind": kind, "exit_code": exit_code, "message": message}}, indent=2) + "\n"
        )
    sys.stderr.write(f"error: {message}\n")


def say(text: str) -> None:
    """A line on stdout, as it is."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line for the user on stderr."""
    sys.stderr.write(f"note: {text}\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; columns whose name begins with ``>`` are aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console(stderr=False).print(table)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Shows the current step on stderr: a spinner on a terminal, else a line when the step changes."""
    console = _console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
        return
    shown = ""

    def line(step: str) -> None:
        nonlocal shown
        what = step.partition(", round")[0]
        if what != shown:
            shown = what
            sys.stderr.write(f"{what}\n")
            sys.stderr.flush()

    yield line


def number(value: float | None, form: str = ".2e") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)
