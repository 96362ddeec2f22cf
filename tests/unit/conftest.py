"""Fakes that unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.gpu import FakeGpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A GPU; at the end of the test nothing may be left on it and none of its rules have been broken."""
    monkeypatch.setattr("riformer_deploy.backends.timing.OCCUPYING_BYTES", 64)  # its memory is the host's
    made = FakeGpu()
    yield made
    made.assert_at_rest()
