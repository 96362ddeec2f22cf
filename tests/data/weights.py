"""Deterministic weights and inputs for the golden files in this folder.

The golden logits were computed with mmpretrain 1.2.0's own RIFormer on exactly these
weights, so a test that fills its model the same way must reproduce them.
"""

import zlib

import numpy as np


def fill(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Value of the tensor named `key` in an mmpretrain training-form state dict, float32."""
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    normal = rng.standard_normal(shape)
    if "layer_scale" in key:
        value = rng.uniform(0.05, 0.5, shape)
    elif key.endswith("token_mixer.affine.weight"):
        value = 1 + 0.5 * normal
    elif "norm" in key and key.endswith("weight"):
        value = 1 + 0.2 * normal
    elif key.endswith("bias"):
        value = 0.1 * normal
    else:  # convolutions and the classifier: variance-preserving
        value = normal / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def golden_input(side: int, batch: int = 2) -> np.ndarray:
    """Already normalised images, (batch, 3, side, side) float32."""
    return (
        np.random.Generator(np.random.PCG64(side)).standard_normal((batch, 3, side, side)).astype(np.float32)
    )
