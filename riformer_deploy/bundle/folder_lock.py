"""The lock of a bundle's folder: writers hold it alone while they write, readers only beside a writer."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from riformer_deploy.common.errors import BundleChangedError
from riformer_deploy.common.files import holder_of, locked

_LOG = logging.getLogger(__name__)

_PAUSE_S = 0.005
_SILENT_S = 1.0
"""A writer moves files for some milliseconds; whom is waited for is said after so long."""
READERS_WAIT_S = 10.0
"""How long a reader waits for a writer."""


@contextlib.contextmanager
def folder_lock(directory: Path, *, reader: bool = False) -> Iterator[None]:
    """Hold the lock of a bundle's folder, and say whom it waits for.

    Args:
        directory: The folder.
        reader: Beside other readers, and for at most ``READERS_WAIT_S``; a writer waits as long as it takes.

    Raises:
        BundleChangedError: A reader waited in vain.
        OSError: The folder cannot be opened.
    """
    with contextlib.ExitStack() as held:
        start, said = time.monotonic(), False
        while True:
            try:
                held.enter_context(locked(directory, blocking=False, shared=reader))
                break
            except BlockingIOError:
                waited_s = time.monotonic() - start
            if reader and waited_s > READERS_WAIT_S:
                who = holder_of(directory) or "another process"
                raise BundleChangedError(
                    f"The bundle {directory} is being written: {who} holds its lock for more than "
                    f"{READERS_WAIT_S:.0f} s.",
                    remedy="Wait until it is done, or stop it, and run the command again.",
                )
            if not said and waited_s > _SILENT_S:
                said = True
                who = holder_of(directory) or "another process"
                _LOG.warning("waiting for %s, which holds the lock of %s", who, directory)
            time.sleep(_PAUSE_S)
        yield
