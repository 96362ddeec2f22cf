"""What commands print: data on stdout, progress and messages on stderr.

Nothing is printed but by this module, which makes text of others harmless for a terminal
(:func:`~riformer_deploy.common.display.displayed`).
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from riformer_deploy.common.display import displayed
from riformer_deploy.common.progress import Step

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_PIPED = 160
_LONGEST_CELL = 1000


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else _WIDTH_PIPED,
        highlight=False,
        markup=False,
        emoji=False,
    )


_WIDE = 110


def is_narrow() -> bool:
    """Whether a table on stdout has to leave out what other figures tell, as on a screen of 80 columns."""
    return _console(stderr=False).width < _WIDE


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
    _tell(f"error: {message}")


def say(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(displayed(text) + "\n")


def note(text: str) -> None:
    """A line for the user on stderr."""
    _tell(f"note: {text}")


def _tell(text: str) -> None:
    sys.stderr.write(displayed(text) + "\n")
    sys.stderr.flush()


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
    """One line on stderr: the command that is the next one as a rule.

    Args:
        words: The command's arguments; what a shell would take apart is quoted.
    """
    line = " ".join(shlex.quote(str(word)) for word in words)
    _tell(f"Next: riformer-deploy {line}")


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

    table = Table(title=displayed(title, lines=False) or None, title_justify="left")
    for column in columns:
        side: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(
            column.lstrip("!>"), justify=side, overflow="fold", no_wrap=column.startswith((">", "!"))
        )
    for row in rows:
        table.add_row(
            *(
                # figures are ours and may take two lines; words may be of others
                displayed(cell, longest=_LONGEST_CELL, lines=column.startswith(">"))
                for column, cell in zip(columns, row, strict=True)
            )
        )
    _console(stderr=False).print(table)


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
    room = _console(stderr=False).width - max((cell_len(name) for name, _ in cells), default=0) - _FRAME
    wide = [row for row in cells if any(cell_len(word) > room for word in row[1].split())]
    say(title)
    if len(wide) < len(cells):
        print_table("", ("!", ""), [row for row in cells if row not in wide])
    for name, value in wide:
        say(f"{name}: {value}")


_FRAME = 7
"""What a table of two columns takes beside its cells."""


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Shows the current step on stderr: a spinner on a terminal, else a line when the step changes."""
    console = _console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda step: status.update(displayed(step, longest=_WIDTH_PIPED, lines=False))
        return
    shown = ""

    def line(step: str) -> None:
        nonlocal shown
        what = step.work if isinstance(step, Step) else step
        if what != shown:
            shown = what
            _tell(what)

    yield line


def exit_for_unusable(reasons: Sequence[str]) -> None:
    """Name the pictures that could not be used, on stderr, and exit with the code that says so.

    What could be used was printed before; nothing happens where there is nothing to name.
    """
    if not reasons:
        return
    import typer

    from riformer_deploy.common.errors import ImageError

    for reason in reasons:
        _tell(f"not used: {reason}")
    _tell(f"error: {len(reasons)} pictures could not be used")
    raise typer.Exit(ImageError.exit_code)


_REPORTS = 20


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a long pass is, on stderr: a bar with rate and remaining time, or a line now and then.

    Args:
        what: Things that are counted.
    """
    console = _console(stderr=True)
    start = time.monotonic()
    first = shown = -1

    def line(done: int, total: int) -> None:
        nonlocal first, shown
        first = done if first < 0 else first
        step = done * _REPORTS // total if total else 0
        if step != shown:
            shown = step
            rate = (done - first) / max(time.monotonic() - start, 1e-9)
            left = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate and total else ""
            _tell(f"{done} of {total or 'unknown'} {what}{left}")

    if not console.is_terminal:
        yield line
        return
    with _bar(console, what) as bar:
        yield bar


@contextmanager
def _bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what + ", {task.fields[rate]}/s,"))
    shown = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = shown.add_task(what, total=None, rate="-")
    start = time.monotonic()
    first = -1

    def update(done: int, total: int) -> None:
        nonlocal first
        if first < 0:
            first = done
            shown.start()  # only now: a pass with nothing to count shows nothing
        rate = (done - first) / max(time.monotonic() - start, 1e-9)
        shown.update(task, completed=done, total=total or None, rate=f"{rate:.1f}" if rate else "-")

    try:
        yield update
    finally:
        shown.stop()


def number(value: float | None, form: str = ".2e") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)
