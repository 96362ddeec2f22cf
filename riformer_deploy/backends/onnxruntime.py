"""ONNX Runtime, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from riformer_deploy.backends.base import Outputs, Runtime
from riformer_deploy.bundle.graph_reader import read_model
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import Images

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntime(Runtime):
    """An ONNX file in ONNX Runtime.

    Args:
        path: The model.
        read: Gives the model's content, such as after checking it; None reads the file. ONNX Runtime opens
            no file itself, so what was checked is what runs.
        threads: Intra-op threads; None leaves the choice to ONNX Runtime.
        keep_memory: Keep what a run needed for the next one, which takes several times the memory of one run;
            else it is given back after each.
        provider: ``CPU_PROVIDER``, or ``CUDA_PROVIDER``, which then runs every node, float32 never as TF32.
        stream: Handle of the CUDA stream to run on; None lets ONNX Runtime make its own.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        RuntimeFailureError: The file cannot be loaded, or the provider does not start.
    """

    def __init__(
        self,
        path: Path,
        *,
        read: Callable[[], bytes] | None = None,
        threads: int | None = None,
        keep_memory: bool = True,
        provider: str = CPU_PROVIDER,
        stream: int | None = None,
    ) -> None:
        self._path, self._read = path, read or (lambda: read_model(path))
        self._stream = stream
        self._threads = threads
        self._keep_memory = keep_memory
        self._provider = provider
        self._session: Any = self._load(self._read())
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._tapped: Any = None
        self._tapped_names: tuple[str, ...] | None = None

    def _load(self, model: bytes) -> Any:
        ort = require("onnxruntime")
        options = ort.SessionOptions()
        # Errors; warnings about fused initialisers are noise here. The CUDA provider also prints plans that
        # it tries and does without as errors; what it cannot do without is raised.
        options.log_severity_level = 4 if self._provider == CUDA_PROVIDER else 3
        options.enable_cpu_mem_arena = self._keep_memory
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            providers: list[Any] = [CPU_PROVIDER]
            if self._provider == CUDA_PROVIDER:
                # float32 means float32, and nothing runs on the CPU without a word.
                settings = {"use_tf32": "0"}
                if self._stream is not None:
                    settings["user_compute_stream"] = str(self._stream)
                providers = [(CUDA_PROVIDER, settings)]
                options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            session = ort.InferenceSession(model, options, providers=providers)
        except Exception as err:  # ONNX Runtime raises its own types, which have no common base
            raise RuntimeFailureError(f"ONNX Runtime cannot load {self._path}: {err}") from err
        if session.get_providers()[0] != self._provider:  # it falls back without an error
            raise RuntimeFailureError(f"ONNX Runtime's {self._provider} does not start here.")
        return session

    def _call(self, session: Any, names: list[str], images: Images) -> list[np.ndarray]:
        if self._session is None:
            raise RuntimeFailureError(f"The ONNX Runtime session of {self._path} was closed.")
        try:
            results: list[np.ndarray] = session.run(names, {self._input: images})
        except Exception as err:  # as above
            raise RuntimeFailureError(
                f"ONNX Runtime cannot run {self._path} on images of shape {images.shape}: {err}"
            ) from err
        return results

    @override
    def run(self, images: Images) -> Outputs:
        return dict(zip(self._outputs, self._call(self._session, self._outputs, images), strict=True))

    @override
    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        """Inner tensors by name; they run in a second session, in which they are outputs too.

        Args:
            images: (N, 3, H, W) float32, normalised.
            tensors: Names of values in the graph.

        Raises:
            RuntimeFailureError: The graph has no such value, or ONNX Runtime failed.
            MissingDependencyError: ``onnx`` is not installed.
        """
        wanted = tuple(tensors)
        if self._session is not None and wanted != self._tapped_names:
            self._tapped, self._tapped_names = self._load(self._with_outputs(wanted)), wanted
        return dict(zip(wanted, self._call(self._tapped, list(wanted), images), strict=True))

    def _with_outputs(self, tensors: Sequence[str]) -> bytes:
        """The model with more outputs, serialised; raises RuntimeFailureError for unknown names."""
        onnx = require("onnx")  # what only runs a file does without
        try:
            model = onnx.load_model_from_string(self._read())
        except Exception as err:  # protobuf's errors
            raise RuntimeFailureError(f"{self._path} is no ONNX file: {err}") from err
        produced = {name for node in model.graph.node for name in node.output}
        unknown = [name for name in tensors if name not in produced]
        if unknown:
            raise RuntimeFailureError(
                f"{self._path} has no tensors of these names; it was not exported by this toolkit.",
                details=unknown,
            )
        inferred = onnx.shape_inference.infer_shapes(model).graph  # an output must name its type
        known = {info.name: info for info in (*inferred.value_info, *inferred.output)}
        unknown = [name for name in tensors if name not in known]
        if unknown:
            raise RuntimeFailureError(
                f"The types of these tensors of {self._path} are not known.", details=unknown
            )
        present = {info.name for info in model.graph.output}
        model.graph.output.extend(known[name] for name in tensors if name not in present)
        return bytes(model.SerializeToString())

    @override
    def close(self) -> None:
        """Destroy the sessions."""
        self._session = self._tapped = None
