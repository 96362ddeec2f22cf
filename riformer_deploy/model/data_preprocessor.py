"""The normalisation as a module of the model: mmpretrain's ``ClsDataPreprocessor``, as inference uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from riformer_deploy.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

Triple = tuple[float, float, float]


class DataPreprocessor(nn.Module):
    """Pictures of 8 bits, resized and cropped, as the network takes them.

    Args:
        mean: Subtracted per channel, in 0..255 units, in the order that the network expects.
        std: Divided by, in the same units and order.
        to_rgb: Turn BGR, in which mmpretrain's pictures come, into RGB first.

    ``mean`` and ``std`` are buffers of shape (3, 1, 1) that no state dict holds.
    """

    def __init__(
        self, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD, *, to_rgb: bool = True
    ) -> None:
        super().__init__()
        self.to_rgb = to_rgb
        for name, value in (("mean", mean), ("std", std)):
            # Never on the meta device, where models are made that load their weights: nothing loads these.
            self.register_buffer(name, torch.tensor(value, device="cpu").view(-1, 1, 1), persistent=False)

    @classmethod
    def of(cls, preprocessing: Preprocessing | None) -> DataPreprocessor:
        """That of a record; ImageNet's where there is none."""
        if preprocessing is None:
            return cls()
        return cls(preprocessing.mean, preprocessing.std, to_rgb=preprocessing.channel_order == "RGB")

    @property
    def device(self) -> torch.device:
        """Where the model is, once it was moved as a whole."""
        return self.get_buffer("mean").device

    def forward(self, data: Mapping[str, Any], *, training: bool = False) -> dict[str, Any]:  # noqa: ARG002  # mmengine's signature
        """Normalise a batch.

        Args:
            data: ``inputs``, (N, 3, H, W) or a list of (3, H, W), in BGR, in 0..255 units; what is stored
                under ``data_samples`` is handed on.
            training: Changes nothing: batches are not augmented here.

        Returns:
            ``inputs``, (N, 3, H, W) in the type of ``mean``, on the model's device, and ``data_samples``.
        """
        given = data["inputs"]
        inputs: Tensor = given if isinstance(given, Tensor) else torch.stack(tuple(given))
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        inputs = inputs.to(self.device)
        if self.to_rgb:
            inputs = inputs.flip(1)
        return {"inputs": (inputs.to(mean.dtype) - mean) / std, "data_samples": data.get("data_samples")}
