"""``torch.save`` for disks that fill up and users who press Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO

import torch

from riformer_deploy.common.interruption import interruption_deferred


class _Target:
    """A file whose first failure is kept for later: PyTorch's C++ writer makes its own error and stack of it.

    Args:
        file: Where bytes go, as long as that works.
        interruptions: Once there is one, nothing more is written.
    """

    def __init__(self, file: IO[bytes], interruptions: Sequence[object]) -> None:
        self._file = file
        self._interruptions = interruptions
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.failure is None and not self._interruptions:
            try:
                self._file.write(data)
            except OSError as err:
                self.failure = err
        return len(data)

    def flush(self) -> None:
        """The caller does."""


def save_tensors(content: Mapping[str, object], file: IO[bytes]) -> None:
    """Write what ``torch.load`` reads.

    Args:
        content: Tensors and plain data.
        file: Open for writing.

    Raises:
        OSError: The file cannot be written; what of it was, is of no use.
    """
    with interruption_deferred() as interruptions:
        target = _Target(file, interruptions)
        torch.save(content, target)  # type: ignore[arg-type]  # its stub asks for all methods of a file
    if target.failure is not None:
        raise target.failure
