from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.common.serialization import dump_json
from riformer_deploy.data.decoding import decode_image
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import fit, normalize
from riformer_deploy.serving.golden import encoded_pictures
from riformer_deploy.serving.triton_pictures import PREPROCESSING, TritonPythonModel

HOW = Preprocessing(resize_short_edge_px=72, crop_px=(64, 48))


@dataclass
class Tensor:
    """As Triton's."""

    name: str
    values: Any

    def as_numpy(self) -> Any:
        return self.values


class TritonError(Exception):
    """As Triton's, which is no exception; its text is kept."""

    INVALID_ARG = 3

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class InferenceResponse:
    """As Triton's."""

    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What Triton's process offers as ``triton_python_backend_utils``; tests/serving has the real one."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor, module.TritonError, module.InferenceResponse = Tensor, TritonError, InferenceResponse
    module.triton_string_to_numpy = {
        "TYPE_FP32": np.float32, "TYPE_FP16": np.float16, "TYPE_UINT8": np.uint8
    }.get  # fmt: skip

    def get_input_tensor_by_name(request: dict[str, Any], name: str) -> Tensor:
        return Tensor(name, request[name])

    module.get_input_tensor_by_name = get_input_tensor_by_name
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module  # type: ignore[no-any-return]


def model_of(folder: Path, data_type: str) -> TritonPythonModel:
    """A model whose version 1 lies in ``folder``."""
    (folder / "1").mkdir()
    (folder / "1" / PREPROCESSING).write_text(dump_json(HOW))
    config = {"input": [{"name": "pictures"}], "output": [{"name": "images", "data_type": data_type}]}
    model = TritonPythonModel()
    model.initialize(
        {"model_repository": str(folder), "model_version": "1", "model_config": json.dumps(config)}
    )
    return model


def request_of(*pictures: bytes) -> dict[str, Any]:
    return {"pictures": np.array([[item] for item in pictures], dtype=object)}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("data_type", ["TYPE_FP32", "TYPE_FP16", "TYPE_UINT8"])
def test_pictures_become_exactly_the_bundle_s_pixels(data_type: str, tmp_path: Path) -> None:
    pictures = encoded_pictures(HOW)
    model = model_of(tmp_path, data_type)
    first, second = model.execute([request_of(*pictures), request_of(pictures[1])])
    model.finalize()
    pixels = [fit(decode_image(item), HOW) for item in pictures]
    expected: Any = np.stack(pixels) if data_type == "TYPE_UINT8" else normalize(pixels, HOW)
    (tensor,) = first.output_tensors
    np.testing.assert_array_equal(tensor.values, expected.astype(tensor.values.dtype))
    np.testing.assert_array_equal(second.output_tensors[0].values, tensor.values[1:2])
    assert tensor.values.dtype == {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32}.get(data_type, np.uint8)


@pytest.mark.usefixtures("backend")
def test_a_request_with_a_bad_picture_is_answered_with_the_reason_and_the_next_one_is_served(
    tmp_path: Path,
) -> None:
    good = encoded_pictures(HOW)[0]
    cut = good[: len(good) // 2]
    model = model_of(tmp_path, "TYPE_FP32")
    bad, served = model.execute([request_of(good, cut), request_of(good)])
    assert bad.error.code == TritonError.INVALID_ARG
    assert "picture 1 of the request cannot be decoded" in str(bad.error)
    assert "\n" not in str(bad.error)
    assert served.error is None
    assert len(served.output_tensors[0].values) == 1
    file = io.BytesIO()
    Image.new("L", (64, 6400)).save(file, "PNG")
    (fine,) = model.execute([request_of(file.getvalue())])
    assert fine.error is None
