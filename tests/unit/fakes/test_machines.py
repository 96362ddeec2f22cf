"""The stand-in's GPU form, as far as it can be held without one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.fakes.standin.machines import CudaMachine

CAPTURED, PLAIN = 1, 2
"""Streams."""


class Pool:
    """Counts those that exist."""

    alive = 0

    def __init__(self) -> None:
        Pool.alive += 1

    def __del__(self) -> None:
        Pool.alive -= 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> CudaMachine:
    """Over a CUDA of PyTorch in which stream 1 is being captured."""
    current: list[int] = []

    @contextlib.contextmanager
    def on_stream(handle: int) -> Any:
        current.append(handle)
        yield
        current.pop()

    for name, value in {
        "init": lambda: None,
        "ExternalStream": lambda handle, **_: handle,
        "stream": on_stream,
        "device": lambda _: contextlib.nullcontext(),
        "use_mem_pool": lambda _: contextlib.nullcontext(),
        "is_current_stream_capturing": lambda: current[-1] == CAPTURED,
        "MemPool": Pool,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(CudaMachine, "_begin", lambda *_: None)
    monkeypatch.setattr(Pool, "alive", 0)
    return CudaMachine()


def retiring(machine: CudaMachine) -> Callable[[], None]:
    """Work of an engine during which a context of another ends."""
    pools = [machine.new_pool()]

    def work() -> None:
        before = Pool.alive
        machine.retire(pools)
        assert Pool.alive == before

    return work


def test_a_pool_that_ends_in_a_capture_waits_for_a_run_that_is_none(machine: CudaMachine) -> None:
    machine.put(CAPTURED, None, retiring(machine))
    assert Pool.alive == 1
    machine.put(CAPTURED, None, lambda: None)
    assert Pool.alive == 1
    machine.put(PLAIN, None, lambda: None)
    assert Pool.alive == 0


def test_a_pool_that_ends_in_a_run_waits_for_its_end(machine: CudaMachine) -> None:
    machine.put(PLAIN, None, retiring(machine))
    assert Pool.alive == 0


def test_a_pool_that_ends_while_nothing_runs_ends_at_once(machine: CudaMachine) -> None:
    machine.retire([machine.new_pool()])
    assert Pool.alive == 0
