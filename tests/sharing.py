"""What is expensive is made once in a run, whichever of pytest-xdist's workers needs it first."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import InputForm
from riformer_deploy.common.files import locked
from riformer_deploy.common.replacing import replacing
from riformer_deploy.export.lowering import LoweredRIFormer
from tests.tracing import untraced


def shared_folder(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share; pytest removes it with those of its runs."""
    own = factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """``path``, which ``make(path)`` wrote in this worker or in another one.

    Args:
        path: A file or folder in the shared folder.
        make: Writes it. If it raises, the next one who asks tries again.
    """
    lock, done = path.with_name(f"{path.name}.lock"), path.with_name(f"{path.name}.done")
    lock.touch()
    with locked(lock):
        if not done.exists():
            make(path)
            done.touch()
    return path


_OF_PIXELS = frozenset({"model.flipped", "model.mean", "model.std"})
"""What a lowered model takes of the preprocessing: a graph of images that are normalised already has none."""


def _plain(value: object) -> object:
    """An attribute, less what a graph has nothing of: which images ranges were measured on."""
    return dataclasses.replace(value, calibration=None) if isinstance(value, LoweringConfig) else value


def _identity(model: nn.Module, arguments: object) -> str:
    """A hash of all that an export depends on: classes, plain attributes, tensors and arguments.

    A set's order differs between workers: then the same model is exported twice, which is only slower.
    """
    found = hashlib.sha256(repr(arguments).encode())
    lowered = getattr(model, "model", None)
    takes_pixels = not isinstance(lowered, LoweredRIFormer) or lowered.config.input_form is InputForm.UINT8
    unused = frozenset[str]() if takes_pixels else _OF_PIXELS
    for name, part in model.named_modules():
        plain = {
            key: _plain(value)
            for key, value in vars(part).items()
            if not key.startswith("_") and f"{name}.{key}" not in unused
        }
        found.update(f"{name} {type(part).__module__}.{type(part).__qualname__} {plain!r}".encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in unused:
            continue
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """The garbage collector pauses: it would look at what an exporter makes again and again meanwhile."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@dataclass(frozen=True, kw_only=True)
class Program:
    """What this project takes of the exporter's program.

    Attributes:
        model_proto: The graph.
    """

    model_proto: onnx.ModelProto


def remembering(export: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """``torch.onnx.export``, whose results of this run are kept by all that they depend on.

    Tracing and decomposing take seconds; what is done to the graph afterwards is done every time.

    Args:
        export: The real one.
        folder: Where the graphs are kept.
    """

    def remembered(model: nn.Module, examples: tuple[torch.Tensor, ...], **options: Any) -> Program:
        shapes = [(value.dtype, tuple(value.shape)) for value in examples]
        path = folder / f"{_identity(model, (shapes, sorted(options.items())))}.onnx"
        if path.exists():
            return Program(model_proto=onnx.load(path))
        with untraced(), _uncollected():
            graph: onnx.ModelProto = export(model, examples, **options).model_proto
        with replacing(path) as partial:
            onnx.save(graph, partial)
        return Program(model_proto=graph)

    return remembered


def exporting_once(folder: Path) -> Iterator[None]:
    """``torch.onnx.export`` remembers meanwhile, and looks for its operators' translations once.

    It only reads their registry, and making one takes a sixth of an export. What was imported by now is
    no garbage: the collector leaves it out from here on.
    """
    gc.collect()
    gc.freeze()
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):  # onnxscript, on a machine that cannot export
            from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: PLC0415

            once = functools.cache(ONNXRegistry.from_torchlib)
            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        patch.setattr(torch.onnx, "export", remembering(torch.onnx.export, folder))
        yield
