"""Long calls into C++ code that Ctrl-C can end: Python sees an interrupt in its main thread only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def interruptible(work: Callable[[], T], cancel: Callable[[], None]) -> T:
    """Run something beside the main thread; Ctrl-C cancels it and is raised when it has ended.

    Args:
        work: The long call.
        cancel: Makes it end early.

    Returns:
        What it gives; what it raises is raised here.
    """
    results: list[T] = []
    failures: list[BaseException] = []
    begin = threading.Event()
    done = threading.Event()  # Thread.join takes a thread for ended once Ctrl-C interrupts it (before 3.13)
    wanted = True

    def run() -> None:
        begin.wait()
        try:
            if wanted:
                results.append(work())
        except BaseException as err:  # noqa: BLE001  # raised again below, in the caller's thread
            failures.append(err)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="tensorrt-build")
    interrupted, running = False, True
    try:
        thread.start()
        while running:
            try:
                begin.set()
                running = not done.wait(0.1)
            except KeyboardInterrupt:
                interrupted = True
                cancel()
    except BaseException:  # Ctrl-C while the thread was being started: it may run, and shall do nothing
        wanted = False
        begin.set()
        raise
    thread.join()
    if interrupted:
        raise KeyboardInterrupt
    if failures:
        raise failures[0]
    return results[0]
