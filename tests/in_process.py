"""The command line in this process, which is quicker than a process of its own; and what it leaves behind."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from riformer_deploy_cli import main, streams


@contextlib.contextmanager
def left_as_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log levels, verbosity and PyTorch's threads, which commands set for the whole process, as they were.

    Tables are as wide as where no width is asked for, whatever the shell around the tests says.
    """
    monkeypatch.delenv("COLUMNS", raising=False)
    for name in ("_chosen", "_json"):
        monkeypatch.setattr(streams, name, getattr(streams, name))
    loggers = (logging.getLogger(), logging.getLogger(streams.LIBRARY))
    levels, threads = [logger.level for logger in loggers], torch.get_num_threads()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.set_num_threads(threads)


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> CompletedProcess[str]:
    """What the entry point exits with and prints, given these arguments."""
    line = ["riformer-deploy", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", line)
    capsys.readouterr()
    code: Any = None
    try:
        main.run()
    except SystemExit as exit_:
        code = exit_.code
    printed = capsys.readouterr()
    assert code is None or isinstance(code, int)
    return CompletedProcess(line, code or 0, printed.out, printed.err)
