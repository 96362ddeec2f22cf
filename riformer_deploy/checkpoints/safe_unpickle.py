"""Reads what ``torch.save`` wrote, without running anything that the file names.

The file's pickles are interpreted here (:mod:`~riformer_deploy.checkpoints.pickle_values`): no class is
imported, no function is called, and neither pickle nor PyTorch's unpickler is used. A real training checkpoint
names more than tensors: log buffers, optimiser state, NumPy scalars. Those that training frameworks leave
behind become placeholders; a file with any other global is refused, since it was made to run code or by a
program that is not known here.
"""

from __future__ import annotations

from pathlib import Path

from riformer_deploy.checkpoints.file_kinds import FETCH_AGAIN, check_kind
from riformer_deploy.checkpoints.stored_tensors import is_known
from riformer_deploy.checkpoints.torch_file import read_legacy, read_zip
from riformer_deploy.common.errors import CheckpointUnreadableError, CheckpointUnsafeError
from riformer_deploy.common.foreign_data import foreign_data

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


def read_checkpoint(path: Path, data: bytearray) -> object:
    """What a checkpoint file holds: plain data, tensors on the CPU, and placeholders.

    Args:
        path: Named in errors.
        data: The file's content, in the zip format or the one from before PyTorch 1.6. Tensors are views of
            it.

    Raises:
        CheckpointUnreadableError: It is empty, truncated or something else, or has more members or opcodes
            than are read.
        CheckpointUnsafeError: It names a global that no training framework leaves behind.
    """
    check_kind(path, data)
    view, names = memoryview(data), set[str]()
    try:
        with foreign_data(path, CheckpointUnreadableError, kind="a PyTorch checkpoint", remedy=FETCH_AGAIN):
            content = read_zip(path, view, names) if data.startswith(b"PK") else read_legacy(view, names)
    except CheckpointUnreadableError:
        _check_names(path, names)  # that says more than where the interpretation of such a file ended
        raise
    _check_names(path, names)
    return content


def _check_names(path: Path, names: set[str]) -> None:
    refused = sorted(name for name in names if not is_known(name) and not _is_inert(name))
    if refused:
        raise CheckpointUnsafeError(
            f"{path} was not loaded: it names code that no training framework leaves in a checkpoint.",
            details=refused,
            remedy="It is, or holds, a whole pickled module, which only its own code can load: load it there "
            "and save its state_dict()."
            if any(name.startswith("torch.nn.modules.") for name in names)
            else "Loading such a file with pickle would run that code. Do not, unless you wrote it.",
        )


def _is_inert(name: str) -> bool:
    return (
        name in _INERT_GLOBALS or name.startswith(_INERT_MODULES) or name.partition(".")[0] in _INERT_PACKAGES
    )
