"""What a check of a server found, as records."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.common.enums import Precision
from riformer_deploy.evaluation.latency_summary import LatencySummary
from riformer_deploy.evaluation.results import OutputParity, Status
from riformer_deploy.evaluation.tolerances import Tolerance
from riformer_deploy.serving.triton_client import Transport


@dataclass(frozen=True, kw_only=True)
class ServedLoad:
    """How a server answers so many clients that each send one image and wait for the answer.

    Attributes:
        concurrency: Clients.
        requests: Answered requests of all of them.
        images_per_s: Requests divided by the time from the first question to the last answer.
        summary: Statistics of the time that a client waited.
    """

    concurrency: int
    requests: int
    images_per_s: float
    summary: LatencySummary


@dataclass(frozen=True, kw_only=True)
class TransportCheck:
    """What a server gave over one protocol.

    Attributes:
        transport: The protocol.
        outputs: The network's outputs on the golden inputs, against the reference.
        pictures: Outputs of encoded pictures, against what the same network gives for the pixels that this
            toolkit makes of them; none where the server takes no pictures.
        problems: Names, types, shapes or labels that are not the bundle's, one a line.
        loads: Latency and throughput, by number of clients.
        status: Passed if all outputs did and there are no problems.
    """

    transport: Transport
    outputs: tuple[OutputParity, ...]
    pictures: tuple[OutputParity, ...]
    problems: tuple[str, ...]
    loads: tuple[ServedLoad, ...]
    status: Status


@dataclass(frozen=True, kw_only=True)
class ServeCheck:
    """Whether a server gives what a bundle says.

    Attributes:
        created_utc: When, in ISO 8601.
        url: The server's HTTP address.
        bundle: The bundle's folder.
        artifact: The bundle's file that the server runs.
        artifact_sha256: Of that file.
        precision: What it computes in.
        tolerance: The limits that its outputs are held to.
        transports: One a protocol.
        largest_batch_run: The largest batch that the server has run since it was started.
        notes: What could not be checked.
        status: Passed if every protocol did.
    """

    created_utc: str
    url: str
    bundle: str
    artifact: str
    artifact_sha256: str
    precision: Precision
    tolerance: Tolerance
    transports: tuple[TransportCheck, ...]
    largest_batch_run: int | None
    notes: tuple[str, ...]
    status: Status
