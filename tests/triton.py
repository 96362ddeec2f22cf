"""Triton's configurations, read back as Triton reads them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory, text_format  # type: ignore[import-untyped]

_SCHEMA = Path(__file__).parent / "data" / "triton-model-config.pb"


@functools.cache
def _config_class() -> Any:
    """``inference.ModelConfig``, from the descriptor in tritonclient 2.73.0 (BSD-3-Clause, NVIDIA)."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_SCHEMA.read_bytes())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def parsed(text: str) -> Any:
    """A model's configuration; unknown fields and wrong types are errors."""
    return text_format.Parse(text, _config_class()())
