from __future__ import annotations

import os
import signal
import threading

import pytest

from riformer_deploy.common.interruption import interruption_deferred, kept_on_interruption


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_is_raised_when_the_block_has_ended() -> None:
    done = []

    def work() -> None:
        with interruption_deferred() as arrived, interruption_deferred():
            assert not arrived
            interrupt()
            done.append("inner")
        done.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_gives_way_to_ctrl_c_and_else_passes() -> None:
    def interrupt_and_fail() -> None:
        interrupt()
        raise ValueError

    with pytest.raises(KeyboardInterrupt), interruption_deferred():
        interrupt_and_fail()
    with pytest.raises(ValueError, match="own"), interruption_deferred():
        raise ValueError("own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_sigterm_is_put_off_too() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("handled"))
    try:
        with interruption_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("block")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["block", "handled"]


def test_another_thread_defers_nothing_and_works() -> None:
    ran = []

    def work() -> None:
        with interruption_deferred():
            ran.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [signal.default_int_handler]


def test_what_is_kept_goes_with_the_interruption_and_with_nothing_else() -> None:
    kept = kept_on_interruption
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        kept(lambda: "outer"),
        kept(lambda: ""),
        kept(lambda: "inner"),
    ):
        raise KeyboardInterrupt
    assert caught.value.__notes__ == ["inner", "outer"]
    with pytest.raises(ValueError, match="own") as error, kept_on_interruption(lambda: "kept"):
        raise ValueError("own")
    assert not hasattr(error.value, "__notes__")
