"""A process on a terminal of 80 columns, as a person has it before them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a command on a pseudo-terminal, which is its controlling one: what is typed reaches it as signals.

    Args:
        line: The command.
        folder: Where it runs.
        columns: How wide the terminal is.

    Attributes:
        output: All that was shown so far, with escape sequences.
    """

    def __init__(self, line: Sequence[str | Path], folder: Path, *, columns: int = 80) -> None:
        self.output = ""
        self._screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
        self._process = subprocess.Popen(  # noqa: S603  # the command of this project
            list(map(str, line)),
            cwd=folder,
            env={**environment, "TERM": "xterm-256color", "CUDA_VISIBLE_DEVICES": ""},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # one call of the system
        )
        os.close(inner)

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        """Read until a text was shown."""
        deadline = time.monotonic() + timeout_s
        while text not in self.plain:
            assert self._read(deadline), f"{text!r} was not shown:\n{self.plain}"

    def type(self, keys: str) -> None:
        """Type keys, such as ``\\x03`` for Ctrl-C."""
        os.write(self._screen, keys.encode())

    def finish(self, timeout_s: float = 120) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        os.close(self._screen)
        return self._process.wait(timeout=timeout_s)

    @property
    def plain(self) -> str:
        """What was shown, without escape sequences, line feeds alone at the ends of lines."""
        return _ESCAPE.sub("", self.output).replace("\r\n", "\n")

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            self._process.kill()
            raise TimeoutError(self.plain)
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # the other end is closed
            return False
        self.output += data.decode(errors="replace")
        return bool(data)
