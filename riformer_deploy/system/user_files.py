"""Folders outside a bundle that the toolkit, or a library that it runs, writes to."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class UserFolder:
    """One such folder.

    Attributes:
        path: The folder.
        holds: What it holds, and which commands or calls fill it.
        variable: The variable of the environment that moves it.
        exists: Whether it is there.
    """

    path: str
    holds: str
    variable: str
    exists: bool


def _home(variable: str, *below_home: str) -> Path:
    """The folder that a variable names, or the usual one in the home folder."""
    named = os.environ.get(variable)
    return Path(named) if named else Path.home().joinpath(*below_home)


def calibration_cache() -> Path:
    """Where calibrations are kept: ``riformer-deploy`` in the user's cache folder."""
    return _home("XDG_CACHE_HOME", ".cache") / "riformer-deploy" / "calibrations"


def _torch_hub() -> Path:
    """As ``torch.hub.get_dir()`` finds it, without PyTorch."""
    named = os.environ.get("TORCH_HOME")
    return (Path(named) if named else _home("XDG_CACHE_HOME", ".cache") / "torch") / "hub" / "checkpoints"


def _matplotlib_cache() -> Path:
    """As ``matplotlib.get_cachedir()`` finds it, without matplotlib."""
    named = os.environ.get("MPLCONFIGDIR")
    return Path(named) if named else _home("XDG_CACHE_HOME", ".cache") / "matplotlib"


def _inductor_cache() -> Path:
    """As ``torch._inductor.runtime.cache_dir_utils`` finds it."""
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"torchinductor_{_user()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid())


_FOLDERS: tuple[tuple[Callable[[], Path], str, str], ...] = (
    (calibration_cache, "calibrations: export, sensitivity", "XDG_CACHE_HOME"),
    (_torch_hub, "published checkpoints: get_model(..., pretrained=True)", "TORCH_HOME"),
    (_inductor_cache, "what torch.compile made: bench --compile, bench --engine", "TORCHINDUCTOR_CACHE_DIR"),
    (
        lambda: _home("TRITON_CACHE_DIR", ".triton", "cache"),
        "GPU kernels of torch.compile: bench --engine",
        "TRITON_CACHE_DIR",
    ),
    (
        lambda: _home("CUDA_CACHE_PATH", ".nv", "ComputeCache"),
        "kernels that NVIDIA's driver compiled: what runs on a GPU",
        "CUDA_CACHE_PATH",
    ),
    (_matplotlib_cache, "matplotlib's list of fonts: report", "MPLCONFIGDIR"),
)


def user_folders() -> tuple[UserFolder, ...]:
    """Every such folder, whether it is there or not."""
    return tuple(
        UserFolder(path=str(path), holds=holds, variable=variable, exists=path.is_dir())
        for path, holds, variable in ((find(), holds, variable) for find, holds, variable in _FOLDERS)
    )
