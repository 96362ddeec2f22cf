"""The preprocessing model of a Triton repository: encoded pictures in, exactly the bundle's pixels out.

It runs in Triton's Python backend, from a copy of this module and of what it imports beside ``model.py``: the
server needs Python 3.11, NumPy, Pillow and packaging, not this toolkit.
"""

from __future__ import annotations

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.errors import RIFormerDeployError
from riformer_deploy.common.serialization import load_json
from riformer_deploy.data.decoding import decode_picture
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import check_supported, fit, normalize

PREPROCESSING = "preprocessing.json"
"""The record of what is done to a picture, beside ``model.py``."""


class TritonPythonModel:
    """What Triton calls; the names and signatures are the Python backend's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read what is to be done to a picture.

        Args:
            args: The backend's; the folder, the version and the configuration of this model are used.
        """
        self._backend: Any = importlib.import_module("triton_python_backend_utils")  # exists there alone
        folder = Path(args["model_repository"]) / args["model_version"]
        self._preprocessing = load_json(Preprocessing, (folder / PREPROCESSING).read_text(encoding="utf-8"))
        check_supported(self._preprocessing)
        config = json.loads(args["model_config"])
        (source,), (target,) = config["input"], config["output"]
        self._input, self._output = source["name"], target["name"]
        self._dtype = np.dtype(self._backend.triton_string_to_numpy(target["data_type"]))
        self._pool = ThreadPoolExecutor(thread_name_prefix="decode")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, which holds (N, 1) encoded pictures; an error where one cannot be used.

        Args:
            requests: Those that Triton put together.
        """
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        backend = self._backend
        encoded = backend.get_input_tensor_by_name(request, self._input).as_numpy().reshape(-1)
        try:
            fitted = list(self._pool.map(self._fitted, encoded, range(len(encoded))))
        except RIFormerDeployError as err:
            error = backend.TritonError(" ".join(str(err).split()), backend.TritonError.INVALID_ARG)
            return backend.InferenceResponse(output_tensors=[], error=error)
        images = self._as_input(fitted)
        return backend.InferenceResponse(output_tensors=[backend.Tensor(self._output, images)])

    def _fitted(self, encoded: bytes, number: int) -> NDArray[np.uint8]:
        name = f"picture {number} of the request"
        return fit(decode_picture(encoded, name=name), self._preprocessing, name=name)

    def _as_input(self, fitted: list[NDArray[np.uint8]]) -> NDArray[Any]:
        """As the network takes them: uint8 pictures, or normalised ones in floating point."""
        if self._dtype == np.uint8:
            return np.stack(fitted)
        return np.ascontiguousarray(normalize(fitted, self._preprocessing).astype(self._dtype, copy=False))

    def finalize(self) -> None:
        """End the threads."""
        self._pool.shutdown()
