"""The two standard streams: how wide they are, and how much is told on stderr."""

from __future__ import annotations

import logging
import os
import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from riformer_deploy.common.display import displayed

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_PIPED = 160
LIBRARY = "riformer_deploy"
"""What loggers of this package are called, or begin with."""


class Verbosity(IntEnum):
    """How much stands on stderr."""

    QUIET = 0
    """Errors alone (``-q``)."""
    NORMAL = 1
    """Notes, warnings, progress and the next command, too."""
    VERBOSE = 2
    """What the library logs, how long each step took and where options came from, too (``-v``)."""


_chosen = Verbosity.NORMAL
_json = False


def verbosity() -> Verbosity:
    """As chosen."""
    return _chosen


def choose_verbosity(chosen: Verbosity) -> None:
    """Set it, for the rest of the process; what ``--debug`` lets through stays."""
    global _chosen  # noqa: PLW0603  # of the process, as the streams and the log are
    _chosen = chosen
    root, ours = logging.getLogger(), logging.getLogger(LIBRARY)
    if root.level != logging.DEBUG:
        root.setLevel(logging.ERROR if chosen is Verbosity.QUIET else logging.WARNING)
        # What other packages note of their own work (a line for every node of a graph) is for --debug.
        ours.setLevel(logging.INFO if chosen is Verbosity.VERBOSE else logging.NOTSET)


def console(*, stderr: bool) -> Console:
    """Rich's view of a stream."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else WIDTH_PIPED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def tell(text: str) -> None:
    """A line on stderr, whatever the verbosity."""
    sys.stderr.write(displayed(text) + "\n")
    sys.stderr.flush()


def json_asked() -> bool:
    """Whether the command prints JSON, and so do its errors."""
    return _json


def ask_json(*, asked: bool) -> None:
    """Set it, for the rest of the process."""
    global _json  # noqa: PLW0603  # as the verbosity
    _json = asked
