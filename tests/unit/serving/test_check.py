"""The check against a server in this process; tests/serving has a real one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError, OptionError
from riformer_deploy.data.decoding import decode_picture
from riformer_deploy.data.transforms import fit, normalize
from riformer_deploy.evaluation.results import Status
from riformer_deploy.serving.check import ServeCheckOptions, check_triton
from riformer_deploy.serving.triton_client import Arrays, ServedModel, ServedTensor, Server, Transport


@dataclass
class LocalServer(Server):
    """A bundle's first ONNX file, as a server of its repository would give it."""

    bundle: Bundle
    described: ServedModel = field(init=False)
    pictures: bool = True
    noise: float = 0.0
    shift: int = 0
    label: str = "{}"
    asked: list[int] = field(default_factory=list)
    closed: int = 0

    def __post_init__(self) -> None:
        (artifact, *_) = self.bundle.manifest.onnx
        self._runtime = OnnxRuntime(self.bundle.path_of(artifact.file), threads=1)
        self.described = ServedModel(
            inputs=(ServedTensor(name="images", datatype="FP32", shape=(-1, 3, 64, 64)),),
            outputs=(ServedTensor(name="logits", datatype="FP32", shape=(-1, 10)),),
            largest_batch=8,
            artifact_sha256=artifact.file.sha256,
        )

    def is_ready(self, model: str) -> bool:
        return self.pictures and model == "digits"

    def describe(self, model: str) -> ServedModel:
        if model == "digits-network":
            return self.described
        encoded = (ServedTensor(name="pictures", datatype="BYTES", shape=(-1, 1)),)
        return dataclasses.replace(self.described, inputs=encoded)

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        if model == "digits":
            how = self.bundle.manifest.model.preprocessing
            encoded = inputs["pictures"].reshape(-1)
            fitted = [np.roll(fit(decode_picture(item), how), self.shift, axis=1) for item in encoded]
            images = normalize(fitted, how)
        else:
            images = inputs["images"]
        self.asked.append(len(images))
        given = self._runtime.run(images)
        return {name: given[name] + np.float32(self.noise) for name in outputs}

    def best_labels(self, model: str, inputs: Mapping[str, NDArray[Any]], output: str) -> list[str]:
        scores = self.infer(model, inputs, (output,))[output]
        return [f"{row.max():f}:{row.argmax()}:{self.label.format(row.argmax())}" for row in scores]

    def batches_run(self, model: str) -> tuple[int, ...]:
        assert model == "digits-network"
        return tuple(sorted(set(self.asked)))

    def close(self) -> None:
        self.closed += 1


def like(server: LocalServer, **change: Any) -> LocalServer:
    """Another one that was not asked yet."""
    return dataclasses.replace(server, asked=[], closed=0, **change)


OPTIONS = ServeCheckOptions(url="127.0.0.1:8000", name="digits", concurrencies=(1, 3), requests=6)


@pytest.fixture(scope="module")
def server(digits_bundle: Path) -> LocalServer:
    """A server of the digits; tests change copies of it."""
    return LocalServer(Bundle.open(digits_bundle))


def test_a_server_that_gives_what_the_bundle_says_passes_over_both_protocols(server: LocalServer) -> None:
    opened: list[Transport] = []

    def connect(transport: Transport) -> Server:
        opened.append(transport)
        return server

    steps: list[str] = []
    result = check_triton(server.bundle, OPTIONS, steps.append, connect=connect)
    assert (result.status, result.notes) == (Status.PASSED, ())
    assert [item.transport for item in result.transports] == list(Transport)
    for item in result.transports:
        assert [load.requests for load in item.loads] == [6, 6]
        assert [parity.deviation.max_abs for parity in item.pictures] == [0.0]
        (parity,) = item.outputs
        assert parity.deviation.sqnr_db is not None
        assert parity.deviation.sqnr_db > 90
    assert result.artifact == "model.fp32.onnx"
    assert result.largest_batch_run is not None
    assert result.largest_batch_run > 1
    assert server.closed == len(opened) == 2 * (1 + 1 + 3)
    whats = ("golden inputs and pictures", "latency")
    assert steps == [f"{transport}: {what}" for transport in Transport for what in whats]


@pytest.mark.parametrize(
    ("change", "outputs", "pictures", "problems"),
    [
        ({"noise": 0.01}, Status.FAILED, Status.PASSED, ()),
        ({"shift": 1}, Status.PASSED, Status.FAILED, ()),
        ({"label": "class {}"}, Status.PASSED, Status.PASSED, ("label '", "expected the name '")),
    ],
)
def test_what_differs_fails_and_is_named(
    change: dict[str, Any],
    outputs: Status,
    pictures: Status,
    problems: tuple[str, ...],
    server: LocalServer,
) -> None:
    other = like(server, **change)
    options = dataclasses.replace(OPTIONS, transports=(Transport.HTTP,), requests=0)
    result = check_triton(server.bundle, options, connect=lambda _: other)
    (found,) = result.transports
    assert (found.outputs[0].status, found.pictures[0].status) == (outputs, pictures)
    assert result.status is found.status is Status.FAILED
    assert found.loads == ()
    assert all(part in found.problems[0] for part in problems)
    assert bool(found.problems) == bool(problems)


def test_a_tensor_of_another_shape_is_a_problem_and_a_server_without_pictures_is_said(
    server: LocalServer,
) -> None:
    other = like(server, pictures=False)
    outputs = (ServedTensor(name="logits", datatype="FP16", shape=(-1, 10)),)
    other.described = dataclasses.replace(server.described, outputs=outputs)
    options = dataclasses.replace(OPTIONS, transports=(Transport.GRPC,), requests=0)
    result = check_triton(server.bundle, options, connect=lambda _: other)
    assert result.transports[0].problems == ("output logits FP16 [-1, 10], expected logits FP32 [-1, 10]",)
    assert result.transports[0].pictures == ()
    assert result.notes == ("the server has no model digits: pictures were not compared",)
    other.described = dataclasses.replace(server.described, outputs=())
    problems = check_triton(server.bundle, options, connect=lambda _: other).transports[0].problems
    assert problems == ("output missing, expected logits FP32 [-1, 10]",)


def test_a_server_of_another_file_is_refused(server: LocalServer) -> None:
    other = like(server)
    other.described = dataclasses.replace(server.described, artifact_sha256="0" * 64)
    with pytest.raises(BundleError, match="runs no file of"):
        check_triton(server.bundle, OPTIONS, connect=lambda _: other)
    assert other.closed == 1


@pytest.mark.parametrize(
    ("url", "http", "grpc"),
    [
        ("http://localhost:8000", "localhost:8000", "localhost:8001"),
        ("10.0.0.1:9000", "10.0.0.1:9000", "10.0.0.1:9001"),
        ("http://[::1]:7/", "[::1]:7", "[::1]:8"),
        ("host", "host:8000", "host:8001"),
    ],
)
def test_the_addresses_of_both_protocols_follow_from_the_url(url: str, http: str, grpc: str) -> None:
    options = ServeCheckOptions(url=url)
    assert (options.address_of(Transport.HTTP), options.address_of(Transport.GRPC)) == (http, grpc)
    assert ServeCheckOptions(url=url, grpc="a:1").address_of(Transport.GRPC) == "a:1"


def test_what_cannot_be_asked_for_is_refused_all_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        ServeCheckOptions(url="https://host", concurrencies=(0,), requests=-1, transports=())
    assert len(caught.value.details) == 4
    with pytest.raises(OptionError, match="address"):
        ServeCheckOptions(url="http://host:port")
