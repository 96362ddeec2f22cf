from __future__ import annotations

import logging
from pathlib import Path

import pytest

from riformer_deploy.runtime_caches import RuntimeCache, runtime_cache_of

ENGINE, OTHER = "a" * 64, "b" * 64
KERNELS = bytes(range(256)) * 3


@pytest.fixture
def cache(tmp_path: Path) -> RuntimeCache:
    return runtime_cache_of(tmp_path / "model.fp16.tensorrt-rtx.engine", ENGINE)


def test_kernels_come_back_as_they_were_and_later_ones_replace_them(cache: RuntimeCache) -> None:
    assert cache.read() is None
    cache.write(KERNELS)
    assert cache.read() == KERNELS
    cache.write(b"")
    assert cache.read() == b""


def test_they_lie_beside_the_engine_under_a_hidden_name_and_nothing_else_does(cache: RuntimeCache) -> None:
    cache.write(KERNELS)
    assert [path.name for path in cache.path.parent.iterdir()] == [".model.fp16.tensorrt-rtx.engine.cache"]


@pytest.mark.parametrize("place", [0, 31, 32, 63, 64, -1])
def test_a_byte_that_changed_anywhere_makes_them_useless(
    cache: RuntimeCache, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write(KERNELS)
    content = bytearray(cache.path.read_bytes())
    content[place] ^= 1
    cache.path.write_bytes(content)
    with caplog.at_level(logging.INFO):
        assert cache.read() is None
    assert f"{cache.path} is of another engine, or damaged" in caplog.text


@pytest.mark.parametrize("length", [0, 10, 63, 64, 100])
def test_a_file_that_was_cut_off_is_not_used(cache: RuntimeCache, length: int) -> None:
    cache.write(KERNELS)
    cache.path.write_bytes(cache.path.read_bytes()[:length])
    assert cache.read() is None


def test_those_of_another_engine_are_not_used(cache: RuntimeCache) -> None:
    cache.write(KERNELS)
    assert RuntimeCache(path=cache.path, engine_sha256=OTHER).read() is None


def test_a_folder_that_is_gone_costs_a_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = runtime_cache_of(tmp_path / "gone" / "model.engine", ENGINE)
    assert cache.read() is None
    cache.write(KERNELS)
    assert "compiled kernels could not be kept" in caplog.text
    assert list(tmp_path.iterdir()) == []
