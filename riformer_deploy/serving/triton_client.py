"""A Triton server as the check asks it, over HTTP or gRPC, by NVIDIA's client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.serving.triton_config import ARTIFACT_SHA256

Arrays = dict[str, NDArray[Any]]
"""Arrays by name of the tensor; the first axis is the batch."""


class Transport(StrEnum):
    """How requests travel."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, kw_only=True)
class ServedTensor:
    """A tensor of a model in a server.

    Attributes:
        name: Its name.
        datatype: Its type, such as ``FP32``.
        shape: Sizes, the batch's first; -1 is any.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What a server says of a model.

    Attributes:
        inputs: In order.
        outputs: In order.
        largest_batch: Most images in one batch.
        artifact_sha256: Of the file that it runs, where the repository was written by this toolkit.
    """

    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    largest_batch: int
    artifact_sha256: str | None


class Server(Protocol):
    """A connection to a server, used by one thread.

    Every method raises :class:`~riformer_deploy.common.errors.RuntimeFailureError` where the server refuses
    or does not answer.
    """

    def is_ready(self, model: str) -> bool:
        """Whether a model of this name can be asked."""

    def describe(self, model: str) -> ServedModel:
        """What the server says of a model."""

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """The outputs named; an input of objects is one of encoded pictures."""

    def best_labels(self, model: str, inputs: Mapping[str, NDArray[Any]], output: str) -> list[str]:
        """``score:class:label`` of the first class of each image."""

    def batches_run(self, model: str) -> tuple[int, ...]:
        """Batch sizes that a model has run since the server was started."""

    def close(self) -> None:
        """End the connection."""


class TritonServer(Server):
    """A connection by ``tritonclient``.

    Args:
        transport: HTTP or gRPC.
        address: ``host:port``.
        timeout_s: After which a request that is not answered is given up, seconds.

    Raises:
        MissingDependencyError: ``tritonclient`` is not installed.
    """

    def __init__(self, transport: Transport, address: str, *, timeout_s: float) -> None:
        self._api = require("tritonclient", transport.value)
        self._failure: type[Exception] = require("tritonclient", "utils").InferenceServerException
        self._transport, self._address = transport, address
        self._timeout_s = timeout_s
        match transport:
            case Transport.HTTP:
                self._client = self._api.InferenceServerClient(
                    address, connection_timeout=timeout_s, network_timeout=timeout_s
                )
                self._as_json: dict[str, Any] = {}
                self._limits: dict[str, Any] = {}
            case Transport.GRPC:
                self._client = self._api.InferenceServerClient(address)
                self._as_json = {"as_json": True, "client_timeout": timeout_s}
                self._limits = {"client_timeout": timeout_s}
            case _:
                assert_never(transport)

    def _call(self, what: str, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, method)(*arguments, **options)
        except (self._failure, OSError) as err:  # OSError: HTTP's, where nobody listens or answers
            raise RuntimeFailureError(
                f"The server at {self._address} ({self._transport}) {what}: {err}",
                remedy="See whether it runs and has loaded the repository of `riformer-deploy serve triton`.",
            ) from err

    def is_ready(self, model: str) -> bool:
        """As :class:`Server`."""
        return bool(self._call("does not answer", "is_model_ready", model, **self._limits))

    def describe(self, model: str) -> ServedModel:
        """As :class:`Server`."""
        said = self._call(f"does not describe {model}", "get_model_metadata", model, **self._as_json)
        config = self._call(f"does not describe {model}", "get_model_config", model, **self._as_json)
        config = config.get("config", config)
        parameters = config.get("parameters", {})
        return ServedModel(
            inputs=tuple(map(_tensor, said.get("inputs", []))),
            outputs=tuple(map(_tensor, said.get("outputs", []))),
            largest_batch=int(config.get("max_batch_size", 0)),
            artifact_sha256=parameters.get(ARTIFACT_SHA256, {}).get("string_value"),
        )

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """As :class:`Server`."""
        wanted = [self._api.InferRequestedOutput(name) for name in outputs]
        given = self._infer(model, inputs, wanted)
        return {name: given.as_numpy(name) for name in outputs}

    def best_labels(self, model: str, inputs: Mapping[str, NDArray[Any]], output: str) -> list[str]:
        """As :class:`Server`."""
        wanted = [self._api.InferRequestedOutput(output, class_count=1)]
        found = self._infer(model, inputs, wanted).as_numpy(output)
        return [item.decode() if isinstance(item, bytes) else str(item) for item in found.reshape(-1)]

    def _infer(self, model: str, inputs: Mapping[str, NDArray[Any]], wanted: list[Any]) -> Any:
        tensors = []
        for name, values in inputs.items():
            tensor = self._api.InferInput(name, list(values.shape), _datatype(values))
            tensor.set_data_from_numpy(values)
            tensors.append(tensor)
        return self._call(f"does not run {model}", "infer", model, tensors, outputs=wanted, **self._limits)

    def batches_run(self, model: str) -> tuple[int, ...]:
        """As :class:`Server`."""
        what = f"gives no statistics of {model}"
        said = self._call(what, "get_inference_statistics", model, **self._as_json)
        sizes = {
            int(batch["batch_size"])
            for version in said.get("model_stats", [])
            for batch in version.get("batch_stats", [])
        }
        return tuple(sorted(sizes))

    def close(self) -> None:
        """As :class:`Server`."""
        self._client.close()


def _tensor(said: Mapping[str, Any]) -> ServedTensor:
    return ServedTensor(
        name=said["name"], datatype=said["datatype"], shape=tuple(int(size) for size in said["shape"])
    )


_DATATYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}


def datatype_of(dtype: str) -> str:
    """The protocol's name of a type of NumPy's.

    Args:
        dtype: Such as ``float32``.
    """
    return _DATATYPES[dtype]


def _datatype(values: NDArray[Any]) -> str:
    return "BYTES" if values.dtype == np.object_ else datatype_of(values.dtype.name)
