from __future__ import annotations

import errno
import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from riformer_deploy.checkpoints.save_tensors import save_tensors

CONTENT = {"meta": {"a": 1}, "state_dict": {name: torch.arange(5000.0) for name in "abc"}}


class Counted(io.BytesIO):
    """Does something at its n-th write."""

    def __init__(self, number: int, action: Any) -> None:
        super().__init__()
        self.left, self.action = number, action

    def write(self, data: Any, /) -> int:
        self.left -= 1
        if self.left == 0:
            self.action()
        return super().write(data)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_written_is_what_torch_reads(tmp_path: Path) -> None:
    with (tmp_path / "a.pth").open("wb") as file:
        save_tensors(CONTENT, file)
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert found["meta"] == {"a": 1}
    assert torch.equal(found["state_dict"]["b"], torch.arange(5000.0))


def test_a_disk_that_fills_up_at_any_write_is_an_os_error_and_nothing_else() -> None:
    counted = Counted(0, None)
    save_tensors(CONTENT, counted)
    writes = -counted.left
    assert writes > 10
    for number in range(1, writes + 1):
        with pytest.raises(OSError, match="No space left") as caught:
            save_tensors(CONTENT, Counted(number, full))
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("number", [1, 4, 9])
def test_ctrl_c_while_it_writes_is_raised_as_such_and_cuts_it_short(number: int) -> None:
    file = Counted(number, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        save_tensors(CONTENT, file)
    assert len(file.getvalue()) < 60_000
