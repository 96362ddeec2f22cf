"""Progress on stderr: a line that changes on a terminal, else one now and then; with the time remaining."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from riformer_deploy.common.display import displayed
from riformer_deploy.common.progress import Step

from .streams import WIDTH_PIPED, Verbosity, console, tell, verbosity

if TYPE_CHECKING:
    from rich.console import Console

_PAUSE_S = 10.0
"""Between two lines about the same work where they are not shown on a terminal."""
_REPORTS = 20


class _Clock:
    """Times the steps of one work after another."""

    def __init__(self) -> None:
        self._work = self._series = ""
        self._start = self._series_start = time.monotonic()
        self._first = 0

    def finished(self, step: str) -> str | None:
        """The work that ended, with its time, where this step begins another."""
        work, series = (step.work, step.series) if isinstance(step, Step) else (step, step)
        now = time.monotonic()
        if series != self._series:
            self._series, self._series_start = series, now
            self._first = step.done if isinstance(step, Step) else 0
        if work == self._work:
            return None
        ended = self._work
        text = f"{ended}: {now - self._start:.1f} s" if ended else ""
        self._work, self._start = work, now
        return text

    def left(self, step: str) -> str:
        """How long the rest of the series takes if it goes on as it went; empty where nothing tells."""
        if not isinstance(step, Step) or step.done <= self._first or step.total <= step.done:
            return ""
        pace_s = (time.monotonic() - self._series_start) / (step.done - self._first)
        return f", about {duration(pace_s * (step.total - step.done))} left"


def duration(seconds: float) -> str:
    """``48 s``, ``3 min`` or ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Shows the current step on stderr; nothing with ``-q``, and with ``-v`` how long each work took."""
    clock = _Clock()

    def account(step: str) -> bool:
        ended = clock.finished(step)
        if ended and verbosity() is Verbosity.VERBOSE:
            tell(ended)
        return ended is not None

    if verbosity() is Verbosity.QUIET:
        yield lambda _step: None
        return
    screen = console(stderr=True)
    if screen.is_terminal:
        with screen.status("starting") as status:

            def update(step: str) -> None:
                account(step)
                status.update(displayed(step + clock.left(step), longest=WIDTH_PIPED, lines=False))

            yield update
        account("")
        return
    told = 0.0

    def line(step: str) -> None:
        nonlocal told
        now = time.monotonic()
        if account(step):
            told = now
            tell((step.work if isinstance(step, Step) else step) + clock.left(step))
        elif now - told >= _PAUSE_S:
            told = now
            tell(step + clock.left(step))

    yield line
    account("")


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a long pass is, on stderr: a bar with rate and remaining time, or a line now and then.

    Args:
        what: Things that are counted.
    """
    if verbosity() is Verbosity.QUIET:
        yield lambda _done, _total: None
        return
    screen = console(stderr=True)
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
            tell(f"{done} of {total or 'unknown'} {what}{left}")

    if not screen.is_terminal:
        yield line
        return
    with _bar(screen, what) as bar:
        yield bar


@contextmanager
def _bar(screen: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what + ", {task.fields[rate]}/s,"))
    shown = Progress(*columns, TimeRemainingColumn(), console=screen, transient=True)
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
