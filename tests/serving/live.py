"""Repositories of ours in a real tritonserver: ``make serving``, in an environment without PyTorch."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import normalize
from riformer_deploy.serving.golden import golden_of
from riformer_deploy.serving.triton_client import Transport, TritonServer
from riformer_deploy.serving.triton_repository import TritonOptions, write_repository
from tests.serving.triton_process import TritonProcess

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = (Precision.FP32, Precision.INT8)
REQUESTS = 64
LARGEST = 8
"""The largest batch of a repository whose bundle holds no latencies."""


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The digits in fp32 and int8, which ``make serving`` exported."""
    assert importlib.util.find_spec("torch") is None, "this is to run where PyTorch is not installed"
    return Bundle.open(os.environ["SERVING_BUNDLE"])


@pytest.fixture(scope="session")
def repositories(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One a precision, all for one server."""
    folder = tmp_path_factory.mktemp("repositories")
    for precision in PRECISIONS:
        options = TritonOptions(output=folder / precision, precision=precision, name=f"digits-{precision}")
        write_repository(bundle, options)
    return [folder / precision for precision in PRECISIONS]


@pytest.fixture(scope="session")
def server(repositories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    """A server of both repositories."""
    process = TritonProcess(repositories, tmp_path_factory.mktemp("server"))
    yield process
    process.end()


@pytest.fixture(scope="session")
def pictures() -> NDArray[np.uint8]:
    """Validation images of the digits, (64, 64, 64, 3)."""
    with np.load(ROOT / "tests" / "data" / "riformer-digits.npz") as stored:
        images: NDArray[np.uint8] = stored["val_images"][:REQUESTS]
    return images


@pytest.fixture(scope="session")
def expected(bundle: Bundle, pictures: NDArray[np.uint8]) -> dict[Precision, NDArray[np.float32]]:
    """ONNX Runtime's logits by precision, (36, 64, 10): first of each image alone, then in larger batches.

    Its sums are rounded otherwise in another batch size, or in another place of a batch; which of them an
    image gets, Triton's batching decides.
    """
    images = normalize(pictures, bundle.manifest.model.preprocessing)
    found = {}
    for artifact in bundle.manifest.onnx:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            bundle.path_of(artifact.file), options, providers=["CPUExecutionProvider"]
        )
        answers = []
        for size in range(1, LARGEST + 1):
            windows = [np.roll(images, -first, axis=0)[:size] for first in range(REQUESTS)]
            runs = np.stack([session.run(["logits"], {"images": window})[0] for window in windows])
            answers += [np.roll(runs[:, place], place, axis=0) for place in range(size)]
        found[artifact.precision] = np.stack(answers)
    return found


def png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def encoded(*content: bytes) -> NDArray[np.object_]:
    return np.array([[item] for item in content], dtype=np.object_)


@pytest.fixture(params=list(Transport))
def connect(request: pytest.FixtureRequest, server: TritonProcess) -> Callable[[], TritonServer]:
    """``connect()``: a connection over one of the protocols."""
    transport: Transport = request.param
    return lambda: TritonServer(transport, server.address(transport), timeout_s=30)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("encode", [True, False], ids=["pictures", "tensors"])
def test_64_requests_at_once_are_batched_and_each_gets_exactly_what_onnx_runtime_gives(
    precision: Precision,
    *,
    encode: bool,
    connect: Callable[[], TritonServer],
    bundle: Bundle,
    pictures: NDArray[np.uint8],
    expected: dict[Precision, NDArray[np.float32]],
) -> None:
    images = normalize(pictures, bundle.manifest.model.preprocessing)
    ready = threading.Barrier(REQUESTS)

    def ask(number: int) -> NDArray[Any]:
        client = connect()
        try:
            ready.wait(timeout=30)
            if encode:
                given: dict[str, NDArray[Any]] = {"pictures": encoded(png(pictures[number]))}
                return client.infer(f"digits-{precision}", given, ("logits",))["logits"]
            given = {"images": images[number : number + 1]}
            return client.infer(f"digits-{precision}-network", given, ("logits",))["logits"]
        finally:
            client.close()

    with ThreadPoolExecutor(REQUESTS) as pool:
        got = np.concatenate(list(pool.map(ask, range(REQUESTS))))
    differences = np.abs(got - expected[precision]).max(axis=2).min(axis=0)
    assert differences.max() == 0
    client = connect()
    assert 1 < max(client.batches_run(f"digits-{precision}-network")) <= LARGEST
    client.close()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_check_passes_over_both_protocols(
    precision: Precision, server: TritonProcess, bundle: Bundle
) -> None:
    program = str(Path(sys.prefix) / "bin" / "riformer-deploy")
    command = [
        program, "serve", "check", server.url, str(bundle.directory),
        "--name", f"digits-{precision}", "--grpc", server.address("grpc"), "--requests", "16", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], result["artifact"]) == ("passed", f"model.{precision}.onnx")
    for transport in result["transports"]:
        assert [item["deviation"]["max_abs"] for item in transport["pictures"]] == [0.0]
        assert [item["concurrency"] for item in transport["loads"]] == [1, 4, 16]
    assert result["notes"] == []


def _request(sent: int) -> tuple[bytes, dict[str, str]]:
    """A request of one image by its description, with so many bytes of it."""
    tensor = {
        "name": "images", "shape": [1, 3, 64, 64], "datatype": "FP32",
        "parameters": {"binary_data_size": sent},
    }  # fmt: skip
    header = json.dumps({"inputs": [tensor]}).encode()
    return header + bytes(sent), {"Inference-Header-Content-Length": str(len(header))}


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("nobody", {"pictures": encoded(b"")}),
        ("digits-fp32", {"picture": encoded(b"")}),
        ("digits-fp32", {"pictures": np.array([b""], dtype=np.object_)}),
        ("digits-fp32", {"pictures": np.zeros((1, 1), np.float32)}),
        ("digits-fp32-network", {"pixels": np.zeros((1, 3, 64, 64), np.float32)}),
        ("digits-fp32-network", {"images": np.zeros((1, 3, 64, 65), np.float32)}),
        ("digits-fp32-network", {"images": np.zeros((3, 64, 64), np.float32)}),
        ("digits-fp32-network", {"images": np.zeros((1, 3, 64, 64), np.float16)}),
        ("digits-fp32-network", {"images": np.zeros((9, 3, 64, 64), np.float32)}),
        ("digits-fp32-network", {"images": np.zeros((0, 3, 64, 64), np.float32)}),
        ("digits-fp32-network", {}),
    ],
)
def test_wrong_names_shapes_types_and_sizes_are_the_client_s_error(
    model: str, inputs: dict[str, NDArray[Any]], connect: Callable[[], TritonServer]
) -> None:
    client = connect()
    with pytest.raises(RuntimeFailureError) as caught:
        client.infer(model, inputs, ("logits",))
    with pytest.raises(RuntimeFailureError) as other:
        client.infer("digits-fp32-network", {"images": np.zeros((1, 3, 64, 64), np.float32)}, ("scores",))
    client.close()
    for error in (caught.value, other.value):
        assert any(
            f"[{code}]" in str(error)
            for code in ("400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
        ), error


# JSON that cannot be parsed, or that holds too few numbers, is answered with 500 by Triton 24.10 itself.
@pytest.mark.parametrize("request_", [(b"", {}), (b'{"inputs": [{"name": "images"}]}', {}), _request(8)])
def test_a_body_that_is_no_request_is_the_client_s_error(
    request_: tuple[bytes, dict[str, str]], server: TritonProcess
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v2/models/digits-fp32-network/infer", *request_)
        with connection.getresponse() as answer:
            assert answer.status == 400


def _bomb() -> bytes:
    """A PNG of 400 million pixels by its header, in a few hundred kilobytes."""
    file = io.BytesIO()
    Image.new("1", (20000, 20000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["no picture", "empty", "cut short", "too large", "too small"])
def test_a_bad_picture_is_refused_with_the_reason_and_the_next_one_is_served(
    kind: str,
    connect: Callable[[], TritonServer],
    pictures: NDArray[np.uint8],
    expected: dict[Precision, NDArray[np.float32]],
) -> None:
    good = png(pictures[0])
    bad, reason = {
        "no picture": (b"GET / HTTP/1.1", "picture 1 of the request cannot be decoded"),
        "empty": (b"", "picture 1 of the request cannot be decoded"),
        "cut short": (good[:-200], "picture 1 of the request cannot be decoded"),
        "too large": (_bomb(), "picture 1 of the request is too large"),
        "too small": (png(pictures[0][:9, :9]), "smaller than the crop"),
    }[kind]
    client = connect()
    with pytest.raises(RuntimeFailureError, match=reason) as caught:
        client.infer("digits-fp32", {"pictures": encoded(good, bad)}, ("logits",))
    assert "[400]" in str(caught.value) or "[StatusCode.INVALID_ARGUMENT]" in str(caught.value)
    got = client.infer("digits-fp32", {"pictures": encoded(good)}, ("logits",))["logits"]
    client.close()
    assert np.abs(got - expected[Precision.FP32][0, :1]).max() == 0


def test_the_same_picture_is_answered_from_the_cache(
    server: TritonProcess, pictures: NDArray[np.uint8]
) -> None:
    client = TritonServer(Transport.HTTP, server.address("http"), timeout_s=30)

    def hits() -> int:
        said = client._client.get_inference_statistics("digits-int8")  # the check has no use for it
        (model,) = said["model_stats"]
        return int(model["inference_stats"]["cache_hit"]["count"])

    given = {"pictures": encoded(png(pictures[7][::-1].copy()))}
    first = client.infer("digits-int8", given, ("logits",))["logits"]
    before = hits()
    second = client.infer("digits-int8", given, ("logits",))["logits"]
    assert hits() == before + 1
    np.testing.assert_array_equal(first, second)
    client.close()


def test_a_server_that_was_killed_is_started_again_with_the_same_answers_and_without_a_cache_too(
    repositories: list[Path], bundle: Bundle, tmp_path: Path
) -> None:
    images = golden_of(bundle).images[:4]
    answers = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        process = TritonProcess(repositories, tmp_path / str(number), cached=number == 0)
        try:
            client = TritonServer(Transport.HTTP, process.address("http"), timeout_s=5)
            answers.append(client.infer("digits-fp32-network", {"images": images}, ("logits",))["logits"])
            process.kill()
            with pytest.raises(RuntimeFailureError, match="The server at"):
                client.infer("digits-fp32-network", {"images": images}, ("logits",))
            client.close()
        finally:
            process.end()
    np.testing.assert_array_equal(answers[0], answers[1])


def test_the_configurations_are_read_as_they_were_written(
    server: TritonProcess, repositories: list[Path]
) -> None:
    schema: Any = importlib.import_module("tritonclient.grpc.model_config_pb2")
    text_format: Any = importlib.import_module("google.protobuf.text_format")
    client = TritonServer(Transport.GRPC, server.address("grpc"), timeout_s=30)
    names = ("input", "output", "max_batch_size", "backend", "version_policy", "model_warmup")
    for path in (path for folder in repositories for path in folder.glob("*/config.pbtxt")):
        written = text_format.Parse(path.read_text(encoding="utf-8"), schema.ModelConfig())
        read = client._client.get_model_config(written.name).config
        for name in names:
            assert str(getattr(read, name)) == str(getattr(written, name)), (written.name, name)
    client.close()
