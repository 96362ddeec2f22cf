"""Writes safetensors files as the format's documentation says, without the package."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor


def write_safetensors(path: Path, state: dict[str, Tensor]) -> None:
    """A state dict of float32 tensors."""
    header, end = {}, 0
    for name, value in state.items():
        size = value.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    body = b"".join(value.contiguous().numpy().tobytes() for value in state.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
