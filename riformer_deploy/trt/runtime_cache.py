"""Kernels that TensorRT-RTX compiled for an engine on this GPU, kept between runs.

A file beside the engine, not listed in ``bundle.json``: it is of this machine, and losing it costs a
recompilation only. It begins with the engine's sha256 and its own content's, so that a cache of another
engine, or one that was damaged, never reaches TensorRT.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.common.files import read_regular
from riformer_deploy.common.replacing import replacing

_LOG = logging.getLogger(__name__)
_HEADER_BYTES = 64


_MOST_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class RuntimeCache:
    """Where the kernels of one engine are kept.

    Attributes:
        path: The file; it need not exist.
        engine_sha256: The engine's.
    """

    path: Path
    engine_sha256: str

    def read(self) -> bytes | None:
        """What was kept for this very engine, or None."""
        try:
            content = read_regular(self.path, _MOST_BYTES)
        except OSError:
            return None
        cache = content[_HEADER_BYTES:]
        if content[:_HEADER_BYTES] != self._header(cache):
            _LOG.info("%s is of another engine, or damaged; kernels are compiled anew", self.path)
            return None
        return cache

    def write(self, cache: bytes) -> None:
        """Keep these kernels; a bundle that cannot be written keeps none."""
        try:
            with replacing(self.path) as partial:
                partial.write_bytes(self._header(cache) + cache)
        except OSError as err:
            _LOG.warning("compiled kernels could not be kept: %s", err)

    def _header(self, cache: bytes) -> bytes:
        return bytes.fromhex(self.engine_sha256) + hashlib.sha256(cache).digest()


def runtime_cache_of(engine: Path, engine_sha256: str) -> RuntimeCache:
    """Where the kernels of an engine are kept: beside it, under a hidden name.

    Args:
        engine: The engine's file.
        engine_sha256: Its sha256.
    """
    return RuntimeCache(path=engine.with_name(f".{engine.name}.cache"), engine_sha256=engine_sha256)
