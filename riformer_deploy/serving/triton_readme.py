"""How a Triton repository is started, for its README and for the command that wrote it."""

from __future__ import annotations

import shlex
from pathlib import Path

from riformer_deploy.common.display import displayed
from riformer_deploy.data.preprocessing import Preprocessing, ResizeBackend
from riformer_deploy.serving.triton_config import Batching

_CACHE_BYTES = 256 * 2**20


def start_command(repository: Path, container: str, preprocessing: Preprocessing | None) -> str:
    """The line that starts Triton on a repository.

    Args:
        repository: Its folder.
        container: Triton's image.
        preprocessing: What its preprocessing model does; None where it has none.
    """
    serve = f"tritonserver --model-repository=/models --cache-config=local,size={_CACHE_BYTES}"
    if preprocessing is not None:
        opencv = preprocessing.resize_backend is ResizeBackend.OPENCV
        needed = ["numpy", "'pillow>=11.3'", "packaging", *(["opencv-python-headless"] if opencv else [])]
        serve = f'bash -c "pip install {" ".join(needed)} && {serve}"'
    return (
        "docker run --rm --gpus all --shm-size 1g -p 8000:8000 -p 8001:8001 "
        f"-v {shlex.quote(f'{repository.resolve()}:/models:ro')} {container} {serve}"
    )


def readme_of(models: tuple[str, ...], command: str, batching: Batching, notes: tuple[str, ...]) -> str:
    """The README of a repository.

    Args:
        models: Names of its models.
        command: The line that starts it.
        batching: How requests are put together.
        notes: What else is to be known.
    """
    lines = [
        "# A RIFormer in Triton",
        "",
        "Written by `riformer-deploy serve triton`. Start it with",
        "",
        "```sh",
        command.replace(" -v ", " \\\n    -v ").replace(":/models:ro ", ":/models:ro \\\n    "),
        "```",
        "",
        "and check it with `riformer-deploy serve check http://localhost:8000 BUNDLE`.",
        "",
        f"Models: {', '.join(f'`{name}`' for name in models)}. The configurations are complete, so that",
        "the server may be started with `--disable-auto-complete-config`.",
        "",
        f"Dynamic batching: up to {batching.largest} images, {batching.source}.",
        *(f"\n{note}" for note in notes),
    ]
    return displayed("\n".join(lines)) + "\n"
