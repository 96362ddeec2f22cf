"""A bundle's file in a server: what is asked for, and what must come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.bundle.artifacts import OnnxArtifact, TensorSpec
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from riformer_deploy.data.decoding import decode_picture
from riformer_deploy.data.transforms import Images, fit, normalize, pixels_of
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.metrics import deviation
from riformer_deploy.evaluation.results import OutputParity, Status
from riformer_deploy.evaluation.tensor_comparison import compare_outputs
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance
from riformer_deploy.serving.check_results import ServedLoad
from riformer_deploy.serving.golden import encoded_pictures, golden_of
from riformer_deploy.serving.triton_client import (
    Arrays,
    ServedModel,
    ServedTensor,
    Server,
    Transport,
    datatype_of,
)
from riformer_deploy.serving.triton_config import PICTURES, ModelNames

_CLASS_SCORES = ("logits", "probabilities")
_CONNECTED_S = 120
"""After which a client that others wait for has surely failed."""

Connect = Callable[[Transport], Server]
"""Opens a connection; each thread has its own."""


@dataclass(frozen=True, kw_only=True)
class ServedArtifact:
    """A bundle's file that a server runs, and what the bundle knows of it.

    Attributes:
        bundle: The bundle.
        artifact: Its file.
        names: Of the models.
        served: What the server says of the network.
    """

    bundle: Bundle
    artifact: OnnxArtifact | EngineArtifact
    names: ModelNames
    served: ServedModel

    @property
    def tolerance(self) -> Tolerance:
        """The limits of the artifact's outputs."""
        return TOLERANCES[self.artifact.precision]

    @property
    def _source(self) -> TensorSpec:
        return self.artifact.inputs[0]

    @property
    def _outputs(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.artifact.outputs)

    def _tensor(self, images: Images) -> NDArray[Any]:
        """Normalised images as the network takes them."""
        if self._source.dtype == "uint8":
            return pixels_of(images, self.bundle.manifest.model.preprocessing)
        return images.astype(self._source.dtype, copy=False)

    def compare(
        self, server: Server, notes: list[str]
    ) -> tuple[tuple[OutputParity, ...], tuple[OutputParity, ...], tuple[str, ...]]:
        """Golden inputs, pictures, and what is not as the bundle says."""
        golden = golden_of(self.bundle)
        tensor, limit = self._tensor(golden.images), self.served.largest_batch or 1
        parts: list[Arrays] = []
        start = 0
        while start < len(tensor):  # batches of 1, 2, 3 and so on, each of another size
            size = min(len(parts) % limit + 1, len(tensor) - start)
            given = {self._source.name: tensor[start : start + size]}
            parts.append(server.infer(self.names.network, given, self._outputs))
            start += size
        got = {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
        outputs = compare_outputs(golden.outputs, got, self.tolerance)
        problems = [
            *self._shape_problems(self.served, (self._source,)),
            *self._label_problems(server, tensor[:limit]),
        ]
        pictures: tuple[OutputParity, ...] = ()
        if server.is_ready(self.names.pictures):
            pictures = self._pictures(server, limit)
            described = server.describe(self.names.pictures)
            expected = TensorSpec(name=PICTURES, dtype="bytes", shape=("batch", 1))
            problems += self._shape_problems(described, (expected,))
        else:
            notes.append(f"the server has no model {self.names.pictures}: pictures were not compared")
        return outputs, pictures, tuple(problems)

    def _pictures(self, server: Server, limit: int) -> tuple[OutputParity, ...]:
        """Outputs of pictures against those of our own pixels, in batches that are the same otherwise."""
        preprocessing = self.bundle.manifest.model.preprocessing
        encoded = encoded_pictures(preprocessing)[:limit]
        pixels = [fit(decode_picture(item), preprocessing) for item in encoded]
        given = {self._source.name: self._tensor(normalize(pixels, preprocessing))}
        expected = server.infer(self.names.network, given, self._outputs)
        as_bytes = np.array([[item] for item in encoded], dtype=np.object_)
        got = server.infer(self.names.pictures, {PICTURES: as_bytes}, self._outputs)
        return tuple(_same(name, expected[name], got[name]) for name in self._outputs)

    def _shape_problems(self, served: ServedModel, inputs: Sequence[TensorSpec]) -> list[str]:
        problems = []
        for kind, tensors, specs in (
            ("input", served.inputs, inputs), ("output", served.outputs, self.artifact.outputs)
        ):  # fmt: skip
            by_name = {item.name: item for item in tensors}
            for expected in map(_expected, specs):
                got = by_name.get(expected.name)
                if got != expected:
                    problems.append(f"{kind} {got or 'missing'}, expected {expected}")
        return problems

    def _label_problems(self, server: Server, tensor: NDArray[Any]) -> list[str]:
        names = self.bundle.manifest.model.class_names
        scores = next((name for name in self._outputs if name in _CLASS_SCORES), None)
        if names is None or scores is None:
            return []
        found = server.best_labels(self.names.network, {self._source.name: tensor}, scores)
        problems = []
        for text in found:
            _, number, label = [*text.split(":", 2), "", ""][:3]
            known = number.isdigit() and int(number) < len(names)
            expected = " ".join(names[int(number)].split()) if known else "of one of the model's classes"
            if not known or label != expected:
                problems.append(f"label {text!r}, expected the name {expected!r}")
        return sorted(set(problems))

    def load(self, connect: Connect, transport: Transport, clients: int, requests: int) -> ServedLoad:
        """Latency and throughput of single images from so many clients at once."""
        each = max(requests // clients, 1)
        image = self._tensor(golden_of(self.bundle).images[:1])

        def ask(client: int) -> list[float]:
            server = connect(transport)
            try:
                server.infer(self.names.network, {self._source.name: image}, self._outputs)  # connects
                everyone.wait(timeout=_CONNECTED_S)
                waits = [time.perf_counter()]
                for number in range(each):
                    given = {self._source.name: _marked(image, client * each + number)}
                    server.infer(self.names.network, given, self._outputs)
                    waits.append(time.perf_counter())
                return waits
            finally:
                server.close()

        everyone = threading.Barrier(clients)
        with ThreadPoolExecutor(clients) as pool:
            times_s = np.array(list(pool.map(ask, range(clients))))
        samples_ms = 1000 * np.diff(times_s, axis=1).reshape(-1)
        return ServedLoad(
            concurrency=clients,
            requests=len(samples_ms),
            images_per_s=len(samples_ms) / float(times_s.max() - times_s.min()),
            summary=summarize(samples_ms, 1),
        )


def _marked(image: NDArray[Any], number: int) -> NDArray[Any]:
    """The image with a number in its first values, so that no cache has its answer."""
    marked = image.copy()
    flat = marked.reshape(-1)
    flat[0], flat[1] = number % 250, number // 250 % 250
    return marked


def _same(name: str, expected: NDArray[Any], got: NDArray[Any]) -> OutputParity:
    """Two answers of one network, which the float32 tolerance allows for the order of its sums alone."""
    rtol, atol = TOLERANCES[Precision.FP32].elementwise or (0.0, 0.0)
    distance = deviation(expected.astype(np.float64), got.astype(np.float64), rtol=rtol, atol=atol)
    used = distance.elementwise_used
    return OutputParity(
        name=name,
        deviation=distance,
        decisions=None,
        tolerance_used=used,
        status=Status.PASSED if used is not None and used <= 1 else Status.FAILED,
    )


def _expected(spec: TensorSpec) -> ServedTensor:
    datatype = "BYTES" if spec.dtype == "bytes" else datatype_of(spec.dtype)
    sizes = tuple(size if isinstance(size, int) else -1 for size in spec.shape)
    return ServedTensor(name=spec.name, datatype=datatype, shape=sizes)
