"""Scans are counted where a decoder finds them, and nowhere else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.data.jpeg import MAX_SCANS, check_scans
from tests.jpegs import with_scans

_MANY = b"\xff\xda" * (MAX_SCANS + 1)


@pytest.fixture(scope="module")
def progressive() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "JPEG", progressive=True)
    return file.getvalue()


def test_the_limit_is_the_number_of_scans(progressive: bytes) -> None:
    own = progressive.count(b"\xff\xda")
    check_scans(with_scans(progressive, MAX_SCANS - own))
    with pytest.raises(ValueError, match=f"more than {MAX_SCANS} scans"):
        check_scans(with_scans(progressive, MAX_SCANS - own + 1))


@pytest.mark.parametrize("marker", [b"\xff\xe1", b"\xff\xfe", b"\xff\xff\xff\xe1"])
def test_what_other_segments_hold_is_no_scan(progressive: bytes, marker: bytes) -> None:
    segment = marker + (len(_MANY) + 2).to_bytes(2, "big") + _MANY  # a thumbnail, or a text
    check_scans(progressive[:2] + segment + progressive[2:])
    with pytest.raises(ValueError, match="scans"):
        check_scans(progressive[:2] + segment + with_scans(progressive, MAX_SCANS)[2:])


def test_filling_bytes_hide_no_scan(progressive: bytes) -> None:
    hidden = with_scans(progressive, MAX_SCANS).replace(b"\xff\xda", b"\xff\xff\xff\xda")
    with pytest.raises(ValueError, match="scans"):
        check_scans(hidden)
