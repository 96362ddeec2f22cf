from __future__ import annotations

import threading

import pytest

from riformer_deploy.trt.interruption import interruptible


def test_what_the_work_gives_or_raises_comes_back() -> None:
    def broken() -> None:
        raise OSError("disk full")

    assert interruptible(lambda: 7, cancel=lambda: None) == 7
    with pytest.raises(OSError, match="disk full"):
        interruptible(broken, cancel=lambda: None)


def test_ctrl_c_while_the_thread_starts_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: begun.append(1), cancel=lambda: None)
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert not begun
