from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from riformer_deploy_cli import progress, streams
from riformer_deploy_cli.streams import Verbosity

from riformer_deploy.common.progress import Step


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    yield
    streams.choose_verbosity(Verbosity.NORMAL)


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``wait(5)``: five seconds went by."""
    now = 100.0

    def forward(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    return forward


def _steps(wait: Callable[[float], None]) -> None:
    with progress.progress() as step:
        step("loading")
        wait(2)
        for done in range(4):
            step(Step("ranking", f"layer {done + 1}", done=done, total=4))
            wait(30)
        for done, name in enumerate(("A", "B")):
            step(Step(name, f"{done + 1} of 2", done=done, total=2, series="all"))
            wait(100)


def test_a_pipe_gets_a_line_now_and_then_with_the_time_remaining(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    _steps(wait)
    assert capsys.readouterr().err.splitlines() == [
        "loading",
        "ranking",
        "ranking, layer 2, about 2 min left",
        "ranking, layer 3, about 60 s left",
        "ranking, layer 4, about 30 s left",
        "A",
        "B, about 2 min left",
    ]


def test_quiet_says_nothing_and_verbose_how_long_each_work_took(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    streams.choose_verbosity(Verbosity.QUIET)
    _steps(wait)
    with progress.counter("pictures") as count:
        count(1, 2)
    assert capsys.readouterr() == ("", "")
    streams.choose_verbosity(Verbosity.VERBOSE)
    _steps(wait)
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.endswith(".0 s")] == [
        "loading: 2.0 s",
        "ranking: 120.0 s",
        "A: 100.0 s",
        "B: 100.0 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_a_time_is_told_as_people_say_it(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said
