"""Ctrl-C: put off while something must not stop half-way, and told what is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def kept_on_interruption(describe: Callable[[], str]) -> Iterator[None]:
    """Add what is kept to a KeyboardInterrupt of the block, as a note (PEP 678) that the command line prints.

    Args:
        describe: Called then; gives one line without a full stop, or an empty text where nothing is kept.
    """
    try:
        yield
    except KeyboardInterrupt as err:
        if text := describe():
            err.add_note(text)
        raise


@contextlib.contextmanager
def interruption_deferred() -> Iterator[Sequence[object]]:
    """Put off what SIGINT and SIGTERM do until the block has ended.

    For work that is short and waits for nothing. Handlers that the system runs by itself stay as they are;
    in another thread than the main one nothing needs to be put off, since Python runs handlers in that alone.

    Yields:
        What has arrived meanwhile, for work that can be cut short; empty as long as nothing has.
    """
    handlers: dict[int, _Handler] = {}
    arrived: list[tuple[int, FrameType | None]] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, note)
        yield arrived
    finally:
        for deferred, handler in handlers.items():
            signal.signal(deferred, handler)
        if arrived:
            handlers[arrived[0][0]](*arrived[0])
