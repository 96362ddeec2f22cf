"""A real tritonserver, from the wheel nvidia-pytriton, on loopback and ended by its process id.

ONNX Runtime's backend is not in the wheel. A Python-based backend of the same name stands in for it
(``onnxruntime_backend.py``), so that a repository is loaded without a change.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import pytriton

_PARTS = Path(pytriton.__file__).parent / "tritonserver"
_STAND_IN = Path(__file__).with_name("onnxruntime_backend.py")
_READY_S = 60
_ENDS_S = 20


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def backends_in(folder: Path) -> Path:
    """A folder of backends: Python's, with the stub of this Python, and the stand-in for ONNX Runtime."""
    backends = folder / "backends"
    shutil.copytree(_PARTS / "backends" / "python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = _PARTS / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copyfile(_STAND_IN, backends / "onnxruntime" / "model.py")
    return backends


class TritonProcess:
    """A server that is ready when this returns.

    Args:
        repositories: What it loads, with strict configurations.
        folder: An empty one for its backends and its log.
        cached: Whether it has a response cache.
    """

    def __init__(self, repositories: Sequence[Path], folder: Path, *, cached: bool = True) -> None:
        self.http_port, self.grpc_port = _free_ports()
        self._log = folder / "server.log"
        self._memory = f"riformer-test-{os.getpid()}-{self.http_port}"
        command = [
            str(_PARTS / "bin" / "tritonserver"),
            *(f"--model-repository={path}" for path in repositories),
            f"--backend-directory={backends_in(folder)}",
            f"--backend-config=python,shm-region-prefix-name={self._memory}",
            "--disable-auto-complete-config",
            "--http-address=127.0.0.1",
            f"--http-port={self.http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            "--allow-metrics=false",
        ]
        if cached:
            caches = _PARTS / "caches"
            command += [f"--cache-directory={caches}", f"--cache-config=local,size={16 * 2**20}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.end()
            raise

    @property
    def url(self) -> str:
        """Where it answers HTTP."""
        return f"http://127.0.0.1:{self.http_port}"

    def address(self, transport: str) -> str:
        """``host:port`` of ``http`` or ``grpc``."""
        return f"127.0.0.1:{self.http_port if transport == 'http' else self.grpc_port}"

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _wait(self) -> None:
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"tritonserver ended with {self._process.returncode}:\n{self.log[-6000:]}")
            try:
                with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=2) as answer:  # noqa: S310
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                pass
            time.sleep(0.1)
        raise TimeoutError(f"tritonserver was not ready after {_READY_S} s:\n{self.log[-6000:]}")

    def kill(self) -> None:
        """End it at once, as where the machine fails; its models' processes are ended with it."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._forget()

    def end(self) -> None:
        """Ask it to end, and end it where it does not."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_S)
        self.kill()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            # its own session: the group is the server and the processes of its models alone
            os.killpg(self._process.pid, number)

    def _forget(self) -> None:
        for path in Path("/dev/shm").glob(f"{self._memory}*"):  # noqa: S108  # where the backend keeps tensors
            path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """The stub finds this environment's packages by PATH, and Python's library by LD_LIBRARY_PATH."""
    bundled = Path(pytriton.__file__).parents[1] / "nvidia_pytriton.libs"
    libraries = [str(sysconfig.get_config_var("LIBDIR")), str(bundled)]
    return {
        **os.environ,
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(libraries),
    }
