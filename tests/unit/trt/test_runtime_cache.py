from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from riformer_deploy.trt.runtime_cache import RuntimeCache, runtime_cache_of

ENGINE, OTHER = "5e" * 32, "0f" * 32


@pytest.fixture
def cache(tmp_path: Path) -> RuntimeCache:
    """Where the kernels of an engine are kept."""
    return runtime_cache_of(tmp_path / "model.fp16.tensorrt-rtx.engine", ENGINE)


def test_it_lies_hidden_beside_the_engine(cache: RuntimeCache, tmp_path: Path) -> None:
    assert cache.path == tmp_path / ".model.fp16.tensorrt-rtx.engine.cache"


@pytest.mark.parametrize("content", [b"", b"kernels", bytes(range(256)) * 50])
def test_what_was_kept_is_read(cache: RuntimeCache, content: bytes) -> None:
    cache.write(content)
    assert cache.read() == content
    head = cache.path.read_bytes()[:64]
    assert head == bytes.fromhex(ENGINE) + hashlib.sha256(content).digest()


def test_writing_replaces_and_leaves_nothing_else(cache: RuntimeCache, tmp_path: Path) -> None:
    cache.write(b"old")
    cache.write(b"new")
    assert cache.read() == b"new"
    assert list(tmp_path.iterdir()) == [cache.path]


def test_nothing_kept_is_nothing_read(cache: RuntimeCache) -> None:
    assert cache.read() is None


@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, -1])
def test_one_altered_bit_anywhere_is_seen(
    cache: RuntimeCache, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    cache.write(b"kernels")
    content = bytearray(cache.path.read_bytes())
    content[at] ^= 1
    cache.path.write_bytes(content)
    with caplog.at_level(logging.INFO):
        assert cache.read() is None
    assert "another engine, or damaged" in caplog.text


@pytest.mark.parametrize("size", [0, 10, 64, 70])
def test_a_cut_file_is_seen(cache: RuntimeCache, size: int) -> None:
    cache.write(b"kernels")
    cache.path.write_bytes(cache.path.read_bytes()[:size])
    assert cache.read() is None


def test_kernels_of_another_engine_are_not_taken(cache: RuntimeCache) -> None:
    RuntimeCache(path=cache.path, engine_sha256=OTHER).write(b"kernels")
    assert cache.read() is None


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = RuntimeCache(path=tmp_path / "absent" / ".cache", engine_sha256=ENGINE)
    lost.write(b"kernels")
    assert "could not be kept" in caplog.text
    assert lost.read() is None
