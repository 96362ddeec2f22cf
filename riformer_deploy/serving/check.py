"""Asks a server for what a bundle knows, and compares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError, OptionError
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.evaluation.results import Status
from riformer_deploy.serving.check_results import ServeCheck, TransportCheck
from riformer_deploy.serving.served_artifact import Connect, ServedArtifact
from riformer_deploy.serving.triton_client import (
    Server,
    Transport,
    TritonServer,
)
from riformer_deploy.serving.triton_config import ModelNames
from riformer_deploy.serving.triton_repository import model_name


@dataclass(frozen=True, kw_only=True)
class ServeCheckOptions:
    """What server to check, and how.

    Attributes:
        url: ``http://host:port``, where it answers HTTP.
        grpc: ``host:port`` where it answers gRPC; None takes the port after HTTP's.
        name: Of the ensemble; None takes the bundle's, as ``serve triton`` does.
        transports: Protocols.
        concurrencies: Numbers of clients that latency and throughput are measured with.
        requests: Requests that are timed for each of these numbers; 0 measures nothing.
        timeout_s: After which a request is given up, seconds.
    """

    url: str
    grpc: str | None = None
    name: str | None = None
    transports: tuple[Transport, ...] = tuple(Transport)
    concurrencies: tuple[int, ...] = (1, 4, 16)
    requests: int = 64
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        problems = [f"--concurrency must be at least 1, got {n}" for n in self.concurrencies if n < 1]
        if self.requests < 0 or self.timeout_s <= 0:
            problems.append("requests must not be negative, and the time limit must be positive")
        if not self.transports:
            problems.append("no protocol is named")
        try:
            self.address_of(Transport.HTTP)
        except ValueError as err:
            problems.append(str(err))
        if problems:
            raise OptionError("The server cannot be checked as asked.", details=problems)

    def address_of(self, transport: Transport) -> str:
        """``host:port`` of a protocol; raises ValueError for a URL that has none."""
        wrong = f"the server's address is http://HOST:PORT, got {self.url}"
        parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        try:
            port = parts.port or 8000
        except ValueError as err:
            raise ValueError(wrong) from err
        if parts.scheme != "http" or parts.hostname is None or parts.path not in ("", "/"):
            raise ValueError(wrong)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if transport is Transport.GRPC:
            return self.grpc or f"{host}:{port + 1}"
        return f"{host}:{port}"


def check_triton(
    bundle: Bundle,
    options: ServeCheckOptions,
    progress: Progress = silent,
    *,
    connect: Connect | None = None,
) -> ServeCheck:
    """Compare what a Triton server gives with what a bundle keeps.

    Args:
        bundle: Whose repository the server has loaded.
        options: Where the server is, and what to do.
        progress: Called with each step.
        connect: Opens connections; None opens tritonclient's.

    Raises:
        BundleError: The bundle keeps no golden inputs, or the server runs no file of the bundle.
        RuntimeFailureError: The server does not answer, or refuses what it must take.
        MissingDependencyError: ``tritonclient`` is not installed.
    """

    def connect_triton(transport: Transport) -> Server:
        return TritonServer(transport, options.address_of(transport), timeout_s=options.timeout_s)

    names = ModelNames.of(options.name or model_name(bundle))
    check: ServedArtifact | None = None
    notes: list[str] = []
    found = []
    largest: int | None = None
    for transport in options.transports:
        connection = (connect or connect_triton)(transport)
        try:
            check = check or _prepared(bundle, connection, names)
            progress(f"{transport}: golden inputs and pictures")
            outputs, pictures, problems = check.compare(connection, notes)
            progress(f"{transport}: latency")
            loads = tuple(
                check.load(connect or connect_triton, transport, clients, options.requests)
                for clients in (options.concurrencies if options.requests else ())
            )
            largest = max(connection.batches_run(names.network), default=largest)
        finally:
            connection.close()
        passed = not problems and all(item.status is Status.PASSED for item in (*outputs, *pictures))
        found.append(
            TransportCheck(
                transport=transport,
                outputs=outputs,
                pictures=pictures,
                problems=problems,
                loads=loads,
                status=Status.PASSED if passed else Status.FAILED,
            )
        )
    assert check is not None  # noqa: S101  # options name at least one protocol
    passed = all(item.status is Status.PASSED for item in found)
    return ServeCheck(
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        url=options.url,
        bundle=str(bundle.directory),
        artifact=check.artifact.file.path,
        artifact_sha256=check.artifact.file.sha256,
        precision=check.artifact.precision,
        tolerance=check.tolerance,
        transports=tuple(found),
        largest_batch_run=largest,
        notes=tuple(dict.fromkeys(notes)),
        status=Status.PASSED if passed else Status.FAILED,
    )


def _prepared(bundle: Bundle, server: Server, names: ModelNames) -> ServedArtifact:
    """What the server is asked for, once it is known which of the bundle's files it runs."""
    served = server.describe(names.network)
    held: tuple[OnnxArtifact | EngineArtifact, ...] = (*bundle.manifest.onnx, *bundle.manifest.engines)
    for artifact in held:
        if artifact.file.sha256 == served.artifact_sha256:
            return ServedArtifact(bundle=bundle, artifact=artifact, names=names, served=served)
    what = served.artifact_sha256 or "one that its configuration does not name"
    raise BundleError(
        f"The server's {names.network} runs no file of {bundle.directory}: its sha256 is {what}.",
        remedy="Write the repository with `riformer-deploy serve triton`, and load it again.",
    )
