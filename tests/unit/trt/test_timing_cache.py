from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.common.errors import OptionError
from riformer_deploy.trt.timing_cache import read_cache, write_cache


def test_what_was_kept_comes_back_and_a_new_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    assert read_cache(None) is None
    assert read_cache(path) == b""
    assert write_cache(path, b"fast") is None
    assert read_cache(str(path)) == b"fast"


def test_nothing_is_kept_where_nothing_was_asked_for_or_given(tmp_path: Path) -> None:
    assert write_cache(None, b"fast") is None
    assert write_cache(tmp_path / "timings", None) is None
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_building_and_told_after(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "timings"
    with pytest.raises(OptionError, match="is no folder that can be written to"):
        read_cache(path)
    assert "could not be written" in str(write_cache(path, b"fast"))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "timings").mkdir()
    with pytest.raises(OptionError, match="cannot be read"):
        read_cache(tmp_path / "timings")
