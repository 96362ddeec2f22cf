"""A Ray to work on: one of this command's own on this machine, or a cluster that is running."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riformer_deploy.common.dependencies import require
from riformer_deploy.common.errors import OptionError, RuntimeFailureError
from riformer_deploy.common.foreign_data import reason_of
from riformer_deploy.system.machine import usable_cores

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch for machines that are no part of a cluster: at 0 its ports listen on loopback alone."""
_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_STORE_BYTES = 512 * 2**20
_LONGEST_FOLDER = 40
"""The names of Ray's sockets are up to 66 characters longer, and the system takes 107."""
_REACHED_S = 10.0
"""For a cluster to take a connection."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where pictures are worked on, and by how many models.

    Attributes:
        cluster: ``auto`` for the cluster that this machine is part of, or the address ``HOST:PORT`` of one;
            None starts Ray on this machine, for this pass alone.
        actors: Models that run side by side; None takes as many as there are cores for (GPUs for engines).
        cpus: Cores of each, and its runtime's threads.
    """

    cluster: str | None = None
    actors: int | None = None
    cpus: int = 1

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (("actors", self.actors), ("cpus", self.cpus))
            if value is not None and value < 1
        ]
        if self.cluster is not None and (not self.cluster or "://" in self.cluster):
            problems.append(
                f"the cluster is auto or HOST:PORT, got {self.cluster!r}; run the command on a machine of "
                "the cluster rather than through Ray Client"
            )
        if problems:
            raise OptionError("Ray cannot be used as asked.", details=problems)


@contextlib.contextmanager
def ray_session(options: RayOptions) -> Iterator[Any]:
    """Ray, started or connected to; a process that has connected already keeps its connection.

    What is started here listens on loopback alone, sends nothing, and ends with the block, however that ends;
    it keeps its files in a temporary folder. Where the process is killed, the system ends it too.

    Yields:
        The module ``ray``.

    Raises:
        MissingDependencyError: Ray is not installed.
        RuntimeFailureError: It does not start, or the cluster cannot be reached.
    """
    if options.cluster is None:
        os.environ.setdefault(_LOOPBACK, "0")  # read when Ray is imported
    ray = require("ray")
    require("ray", "data")
    require("pyarrow", "fs")
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault(_LOG_LEVEL, "fatal")  # Ray warns of what its own libraries do
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if options.cluster is not None:
        _refuse_absent(options.cluster)
    with contextlib.ExitStack() as closing:
        where: dict[str, Any] = {"address": options.cluster}
        if options.cluster is None:
            where = {
                "address": "local",
                "num_cpus": usable_cores(),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": closing.enter_context(_short_folder()),
            }
        closing.callback(ray.shutdown)
        with _own_handlers():
            try:
                ray.init(**where, log_to_driver=False, logging_level="ERROR")
            except Exception as err:  # Ray raises Exception itself where it does not start in 30 seconds
                what = "Ray does not start" if options.cluster is None else f"No cluster at {options.cluster}"
                raise RuntimeFailureError(
                    f"{what}: {err}",
                    remedy="Leave --cluster out to use this machine alone."
                    if options.cluster
                    else "Try again when the machine is less busy; Ray waits for itself for 30 seconds.",
                ) from err
        yield ray


def _refuse_absent(address: str) -> None:
    """See that something listens at ``HOST:PORT``, where Ray would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACHED_S).close()
    except (OSError, OverflowError) as err:
        raise RuntimeFailureError(
            f"No cluster at {address}: {reason_of(err)}",
            remedy="Start one there, or leave --cluster out to use this machine alone.",
        ) from err


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    root = tempfile.gettempdir()
    short = root if len(root) <= _LONGEST_FOLDER else str(Path("/tmp"))  # noqa: S108  # made by mkdtemp
    return tempfile.TemporaryDirectory(prefix="riformer-ray-", dir=short, ignore_cleanup_errors=True)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM; that of the command, which unwinds, is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def free_actors(ray: Any, options: RayOptions, *, gpus: int) -> int:
    """How many models run side by side.

    Args:
        ray: From :func:`ray_session`.
        options: May say so.
        gpus: That each needs.

    Raises:
        RuntimeFailureError: There is no room for one.
    """
    resources = ray.cluster_resources()
    cores, devices = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    room = cores // options.cpus if not gpus else min(cores // options.cpus, devices // gpus)
    if room < (wanted := options.actors or 1):
        raise RuntimeFailureError(
            f"Ray has {cores} cores and {devices} GPUs; {wanted} models of {options.cpus} cores"
            + (f" and {gpus} GPU each" if gpus else "")
            + " do not fit.",
            remedy="Ask for fewer --actors or --cpus.",
        )
    return options.actors or room
