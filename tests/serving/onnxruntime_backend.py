"""ONNX Runtime as a Python-based backend of Triton, in the place of the real one's library.

Triton runs it for every model whose configuration says ``backend: "onnxruntime"``, so that a repository is
loaded as it is. Requests that Triton put together are run as one batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = [item["name"] for item in config["input"]]
        self._outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        parts = [backend.get_input_tensor_by_name(item, self._input).as_numpy() for item in requests]
        outputs = self._session.run(self._outputs, {self._input: np.concatenate(parts)})
        ends = np.cumsum([len(part) for part in parts])[:-1]
        split = [np.split(values, ends) for values in outputs]
        return [
            backend.InferenceResponse(
                [
                    backend.Tensor(name, values[number])
                    for name, values in zip(self._outputs, split, strict=True)
                ]
            )
            for number in range(len(requests))
        ]
