from __future__ import annotations

import logging

import pytest

from riformer_deploy.backends.skipped import Skipped, warn_of_skipped
from tests.candidates import labelled


def test_what_is_left_out_for_the_same_reason_stands_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    reasons = [("A", "no GPU"), ("B", "no GPU"), ("C", "no driver"), ("A", "no GPU")]
    skipped = [Skipped(config=labelled(name), reason=reason) for name, reason in reasons]
    with caplog.at_level(logging.WARNING):
        warn_of_skipped(skipped)
    assert caplog.messages == ["A, B were left out: no GPU", "C was left out: no driver"]
