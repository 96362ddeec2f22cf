"""The command line in this process, which is quicker than a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from riformer_deploy_cli import main


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
