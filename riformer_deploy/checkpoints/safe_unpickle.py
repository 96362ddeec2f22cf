"""Reads what ``torch.save`` wrote, without running anything that the file names.

PyTorch's own restricted unpickler (``weights_only=True``) does the reading. It refuses every global
that it does not know, and a real training checkpoint has some: log buffers, optimiser state, NumPy
scalars. Those that training frameworks leave behind are replaced by inert placeholders, classes
that swallow whatever is done to them; any other global is refused before reading starts.
"""

from __future__ import annotations

import _compat_pickle  # the renames of Python 2 that protocol 2 still writes, as the unpickler applies them
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import torch

from riformer_deploy.checkpoints.file_kinds import FETCH_AGAIN, check_kind
from riformer_deploy.common.errors import CheckpointUnreadableError, CheckpointUnsafeError

_INERT_PACKAGES = frozenset(
    {
        "accelerate", "addict", "apex", "fvcore", "hydra", "iopath", "lightning", "lightning_fabric",
        "lightning_utilities", "mmaction", "mmagic", "mmcls", "mmcv", "mmdeploy", "mmdet", "mmdet3d",
        "mmengine", "mmfewshot", "mmgen", "mmocr", "mmpose", "mmpretrain", "mmrazor", "mmrotate", "mmseg",
        "mmselfsup", "mmyolo", "numpy", "omegaconf", "pytorch_lightning", "timm", "torchmetrics",
        "transformers", "yacs", "yapf",
    }
)  # fmt: skip
_INERT_MODULES = ("torch.amp.", "torch.cuda.amp.", "torch.nn.", "torch.optim.", "torch.utils.data.")
"""Of PyTorch: what training scripts pickle whole beside the weights."""
_INERT_GLOBALS = frozenset(
    {
        "argparse.Namespace",
        "builtins.bool",
        "builtins.bytes",
        "builtins.complex",
        "builtins.dict",
        "builtins.float",
        "builtins.frozenset",
        "builtins.getattr",
        "builtins.int",
        "builtins.list",
        "builtins.object",
        "builtins.set",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "collections.Counter",
        "collections.defaultdict",
        "collections.deque",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        "datetime.timezone",
        "enum.Enum",
        "functools.partial",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "torch.torch_version.TorchVersion",
        "types.SimpleNamespace",
        "typing.Any",
        "uuid.UUID",
    }
)
_LEGACY_PICKLES = 5  # magic number, protocol version, system information, the object, its storages' keys


class Placeholder:
    """Stands for an object of a training framework; takes any arguments and keeps nothing."""

    stands_for: ClassVar[str] = ""

    def __new__(cls, *_args: object, **_options: object) -> Self:
        """Ignore how the object was to be made."""
        return super().__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        """Ignore how the object was to be set up."""

    def __setstate__(self, _state: object) -> None:
        """Ignore what the object held."""


class _EmptyList(Placeholder):
    """A container that is filled after it was made: a plain list takes its place, and what is put in."""

    def __new__(cls, *_args: object, **_options: object) -> Any:
        """A list."""
        return []


class _EmptyDict(Placeholder):
    """The same for a plain dictionary."""

    def __new__(cls, *_args: object, **_options: object) -> Any:
        """A dictionary."""
        return {}


_CONTAINERS: dict[str, type[Placeholder]] = {
    "addict.addict.Dict": _EmptyDict,
    "collections.Counter": _EmptyDict,
    "collections.defaultdict": _EmptyDict,
    "collections.deque": _EmptyList,
    "mmengine.config.config.ConfigDict": _EmptyDict,
}


def _placeholder(name: str) -> type[Placeholder]:
    return type("Placeholder", (_CONTAINERS.get(name, Placeholder),), {"stands_for": name})


def read_checkpoint(path: Path) -> object:
    """What a checkpoint file holds, on the CPU; objects of training frameworks are :class:`Placeholder`.

    Args:
        path: A file that ``torch.save`` wrote, in the zip format or the one before PyTorch 1.6.

    Raises:
        CheckpointUnreadableError: The file is missing, empty, truncated or something else.
        CheckpointUnsafeError: The file names a global that no training framework leaves behind.
    """
    try:
        check_kind(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load(path)
    except OSError as err:
        raise CheckpointUnreadableError(f"{path} cannot be read: {err.strerror or err}") from err
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ValueError, TypeError, KeyError, IndexError,
        EOFError, AttributeError, AssertionError, MemoryError, OverflowError, RecursionError, struct.error,
        zlib.error,
    ) as err:  # fmt: skip  # what torch.load and pickletools raise on damaged input
        raise CheckpointUnreadableError(
            f"{path} is damaged or not a PyTorch checkpoint: {_first_line(err)}", remedy=FETCH_AGAIN
        ) from err


def _load(path: Path) -> object:
    names = sorted(_globals(path))
    refused = [name for name in names if not _is_inert(name)]
    if refused:
        raise CheckpointUnsafeError(
            f"{path} was not loaded: it names code that no training framework leaves in a checkpoint.",
            details=refused,
            remedy="It is, or holds, a whole pickled module, which only its own code can load: load it there "
            "and save its state_dict()."
            if any(name.startswith("torch.nn.modules.") for name in names)
            else "Loading such a file with pickle would run that code. Do not, unless you wrote it.",
        )
    placeholders: list[Any] = [(_placeholder(name), name) for name in names]
    with torch.serialization.safe_globals(placeholders):
        loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def _first_line(err: BaseException) -> str:
    # torch.load hides the unpickler's error behind advice to load the file unsafely.
    if err.__context__ is not None and "weights_only" in str(err):
        err = err.__context__
    text = next(iter(str(err).strip().splitlines()), "") or type(err).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _is_inert(name: str) -> bool:
    return (
        name in _INERT_GLOBALS or name.startswith(_INERT_MODULES) or name.partition(".")[0] in _INERT_PACKAGES
    )


def _globals(path: Path) -> set[str]:
    """Full names of the globals that the file's pickles ask for and the unpickler does not know."""
    if zipfile.is_zipfile(path):
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    known = torch._weights_only_unpickler._get_allowed_globals()  # noqa: SLF001  # no public list of it
    with path.open("rb") as file:
        return {name for _ in range(_LEGACY_PICKLES) for name in _pickle_globals(file)} - set(known)


def _pickle_globals(file: IO[bytes]) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("STACK_GLOBAL", "INST"):
            raise pickle.UnpicklingError(f"opcode {opcode.name}, which torch.save does not write")
        if opcode.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            else:
                module = _compat_pickle.IMPORT_MAPPING.get(module, module)
            yield f"{module}.{name}"
