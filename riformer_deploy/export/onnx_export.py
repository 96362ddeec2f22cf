"""A model as a checked, simplified ONNX file whose block outputs keep their names."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxsim
import torch
from torch import Tensor, nn

from riformer_deploy.bundle.artifacts import TensorSpec
from riformer_deploy.common.enums import InputForm, OutputForm
from riformer_deploy.common.errors import ExportError, OptionError
from riformer_deploy.common.utf8_path import utf8_path
from riformer_deploy.export.lowering import LoweredRIFormer
from riformer_deploy.export.onnx_graph import opset_of, spec_of
from riformer_deploy.model.architecture import SMALLEST_SIDE_PX

DEFAULT_OPSET = 20
"""The oldest operator set with Gelu: with it ONNX Runtime runs the folded S12 fastest."""
OLDEST_OPSET = 18
"""The oldest that PyTorch's exporter writes."""
NEWEST_OPSET = 25
"""The newest that PyTorch's exporter, onnxsim and ONNX Runtime were tried with."""

INPUT_NAME = "images"

_SKIPPED = ["fuse_matmul_add_bias_into_gemm_batched"]
"""Products of tokens stay products: onnxsim would put a Reshape before and behind each, in float32 only."""


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """How to write the graph.

    Attributes:
        image_size_px: Height and width of the input.
        batch: A fixed batch size, or None for a dynamic one.
        opset: Version of the default operator set.
    """

    image_size_px: tuple[int, int]
    batch: int | None = None
    opset: int = DEFAULT_OPSET

    def __post_init__(self) -> None:
        newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
        problems = []
        if min(self.image_size_px) < SMALLEST_SIDE_PX:
            problems.append(
                f"the image must be at least {SMALLEST_SIDE_PX} px on each side, got {self.image_size_px}"
            )
        if self.batch is not None and self.batch < 1:
            problems.append(f"the batch must be positive, got {self.batch}")
        if not OLDEST_OPSET <= self.opset <= newest:
            problems.append(f"the opset must be from {OLDEST_OPSET} to {newest}, got {self.opset}")
        if problems:
            raise OptionError("The graph cannot be written as asked.", details=problems)


def ir_version_of(opset: int) -> int:
    """The IR version that came with an operator set, as onnx's own table has it.

    Args:
        opset: Version of the default operator set.
    """
    found: int = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    return found


class _Tapped(nn.Module):
    """The model with its block outputs beside its scores, so that the exporter names them."""

    def __init__(self, model: LoweredRIFormer) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(name for stage in model.architecture.block_names for name in stage)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        taken: list[Tensor] = []
        modules = dict(self.model.named_modules())

        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            taken.append(output)

        handles = [modules[name].register_forward_hook(hook) for name in self.names]
        results = self.model(images)
        for handle in handles:
            handle.remove()
        return (*(results if isinstance(results, tuple) else (results,)), *taken)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what PyTorch's exporter says of itself; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _input(model: LoweredRIFormer, options: OnnxOptions) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape without the batch, and type, of the graph's input."""
    size = options.image_size_px
    shape = (*size, 3) if model.config.input_form is InputForm.UINT8 else (3, *size)
    return shape, model.input_dtype


def _expected(model: LoweredRIFormer, options: OnnxOptions) -> tuple[TensorSpec, ...]:
    """Inputs and outputs that the graph must have."""
    config, architecture = model.config, model.architecture
    size: int | str = options.batch or "batch"
    shape, dtype = _input(model, options)
    io = str(model.io_dtype).removeprefix("torch.")
    shapes: list[tuple[int, ...]]
    if config.output_form is OutputForm.MAPS:
        shapes = [architecture.map_shape(index, options.image_size_px) for index in config.out_indices]
    else:
        width = {
            OutputForm.FEATURES: architecture.embed_dims[-1],
            OutputForm.TOPK: config.topk,
        }.get(config.output_form, architecture.num_classes)
        shapes = [(width,)] * len(model.output_names)
    outputs = [
        TensorSpec(name=name, dtype=io, shape=(size, *item))
        for name, item in zip(model.output_names, shapes, strict=True)
    ]
    if config.output_form is OutputForm.TOPK:
        outputs[1] = dataclasses.replace(outputs[1], dtype="int64")
    given = TensorSpec(name=INPUT_NAME, dtype=str(dtype).removeprefix("torch."), shape=(size, *shape))
    return (given, *outputs)


def _trace(model: LoweredRIFormer, options: OnnxOptions) -> onnx.ModelProto:
    tapped = _Tapped(model)
    batch = options.batch or 2
    shape, dtype = _input(model, options)
    example = torch.zeros(batch, *shape, dtype=dtype)
    dynamic = None if options.batch else ({0: torch.export.Dim("batch", min=1)},)
    try:
        with _quiet():
            program = torch.onnx.export(
                tapped,
                (example,),
                input_names=[INPUT_NAME],
                output_names=[*model.output_names, *tapped.names],
                opset_version=options.opset,
                dynamic_shapes=dynamic,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as err:  # the exporter wraps whatever went wrong in types of its own
        raise ExportError(f"PyTorch could not export the model to opset {options.opset}: {err}") from err
    if program is None:
        raise ExportError("PyTorch's exporter returned no program.")
    return program.model_proto


def _simplify(graph: onnx.ModelProto) -> onnx.ModelProto:
    try:
        simplified, same = onnxsim.simplify(graph, skipped_optimizers=_SKIPPED)
    except Exception as err:  # onnxsim raises bare RuntimeError and its C++ exceptions
        raise ExportError(f"onnxsim could not simplify the graph: {err}") from err
    if not same:
        raise ExportError("onnxsim reports that its result is not valid.")
    result: onnx.ModelProto = simplified
    return result


def _unwrap(graph: onnx.ModelProto) -> None:
    """Name weights by the model's own keys: the exporter saw the model inside :class:`_Tapped`."""

    def key(name: str) -> str:
        bare = name.removeprefix("model.")
        return bare if bare.startswith(("backbone.", "head.")) else name

    for item in graph.graph.initializer:
        item.name = key(item.name)
    for node in graph.graph.node:
        node.input[:] = [key(name) for name in node.input]


def _scrub(graph: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Leave only what belongs into a file that travels: no stack traces, no local paths."""
    for item in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]
    graph.graph.doc_string = graph.doc_string = ""
    graph.graph.name = "riformer"
    graph.producer_name, graph.producer_version = "riformer-deploy", metadata.get("tool_version", "")
    onnx.helper.set_model_props(graph, dict(metadata))


def _check(path: Path, graph: onnx.ModelProto, model: LoweredRIFormer, options: OnnxOptions) -> None:
    """See that the file is valid and is what was asked for."""
    try:
        with utf8_path(path) as name:
            onnx.checker.check_model(name, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise ExportError(f"onnx.checker refuses the exported graph: {err}") from err
    expected = _expected(model, options)
    found = tuple(spec_of(info) for info in (*graph.graph.input, *graph.graph.output))
    produced = {name for node in graph.graph.node for name in node.output}
    problems = []
    if found != expected:
        problems.append(f"inputs and outputs are {found}, expected {expected}")
    if opset_of(graph) != options.opset:
        problems.append(f"the opset is {opset_of(graph)}, {options.opset} was asked for")
    problems += [
        f"no tensor carries the output of block {name}"
        for stage in model.architecture.block_names
        for name in stage
        if name not in produced
    ]
    if problems:
        raise ExportError("The exported graph is not what was asked for.", details=problems)


def export_onnx(
    model: LoweredRIFormer, path: Path, options: OnnxOptions, metadata: Mapping[str, str]
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Write a model as ONNX: one input ``images``, and the outputs of its config.

    The tensors that carry the blocks' outputs are named after the blocks
    (``backbone.network.0.1``), so that any runtime can be asked for them. Weights have the model's keys
    (``head.fc.weight``), which are mmpretrain's.

    Args:
        model: In evaluation mode.
        path: The file to write.
        options: How to write it.
        metadata: The file's ``metadata_props``.

    Returns:
        The graph's inputs and its outputs.

    Raises:
        ExportError: Export, simplification or the full check failed.
    """
    graph = _simplify(_trace(model, options))
    del graph.graph.output[len(model.output_names) :]
    _unwrap(graph)
    _scrub(graph, metadata)
    # The opset's own: the exporter writes one for all, which runtimes of the opset's time refuse.
    graph.ir_version = ir_version_of(options.opset)
    onnx.save(graph, path)
    _check(path, graph, model, options)
    return tuple(map(spec_of, graph.graph.input)), tuple(map(spec_of, graph.graph.output))
