from __future__ import annotations

import numpy as np
import torch

from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import normalize
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.data_preprocessor import DataPreprocessor
from riformer_deploy.model.network import RIFormer, empty_model
from riformer_deploy.model.reparameterize import fuse

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)
BGR = torch.from_numpy(np.ascontiguousarray(PICTURES[..., ::-1].transpose(0, 3, 1, 2)))


def test_it_normalises_as_the_toolkit_does() -> None:
    for order in ("RGB", "BGR"):
        preprocessing = Preprocessing(
            resize_short_edge_px=None, crop_px=(8, 6), mean=(10, 20, 30), std=(2, 3, 4), channel_order=order
        )
        module = DataPreprocessor.of(preprocessing)
        assert module.to_rgb is (order == "RGB")
        found = module({"inputs": BGR, "data_samples": "kept"})
        np.testing.assert_allclose(found["inputs"], normalize(PICTURES, preprocessing), rtol=1e-6)
        assert found["data_samples"] == "kept"


def test_a_list_is_a_batch_and_mean_and_std_are_mmpretrain_s_buffers() -> None:
    module = DataPreprocessor()
    assert torch.equal(module({"inputs": list(BGR)})["inputs"], module({"inputs": BGR})["inputs"])
    assert module.get_buffer("mean").flatten().tolist() == torch.tensor([123.675, 116.28, 103.53]).tolist()
    assert module.get_buffer("std").shape == (3, 1, 1)
    assert module.state_dict() == {}


def test_it_goes_where_the_model_goes_and_is_real_on_a_model_that_was_loaded(
    tiny_architecture: Architecture, tiny_model: RIFormer
) -> None:
    assert empty_model(tiny_architecture, Form.DEPLOY).data_preprocessor.device.type == "cpu"
    assert tiny_model.data_preprocessor.device.type == "cpu"
    assert tiny_model.double().data_preprocessor({"inputs": BGR})["inputs"].dtype is torch.float64
    assert fuse(tiny_model.to("meta")).data_preprocessor.device.type == "meta"
