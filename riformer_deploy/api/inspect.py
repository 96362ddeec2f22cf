"""What a file is: a checkpoint, an ONNX graph, an engine, or a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx

from riformer_deploy.bundle.artifacts import MANIFEST, TensorSpec
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle, engine_of
from riformer_deploy.checkpoints.config_agreement import with_config
from riformer_deploy.checkpoints.load import load_checkpoint
from riformer_deploy.checkpoints.preprocessing import resolve_preprocessing
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.common.errors import (
    BundleError,
    BundleIntegrityError,
    CheckpointUnreadableError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.common.files import sha256_of
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.parity_failures import stored_parity, why_failed
from riformer_deploy.evaluation.results import ParityResult, Status
from riformer_deploy.export.onnx_graph import NodeCount, graph_flops, node_counts, opset_of, spec_of
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.flops import complexity
from riformer_deploy.trt.preflight import Mismatch, check_file, preflight_here

_TOLD = ("epoch", "iter", "time", "experiment_name", "mmengine_version", "mmcls_version", "riformer_deploy")
"""Entries of ``meta`` worth showing."""
_PLANS = {".engine", ".plan", ".trt"}
"""What people call plan files; those of bundles are ``.engine``."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInspection:
    """A checkpoint file.

    Attributes:
        kind: Always ``checkpoint``.
        path: The file.
        sha256: Of its content.
        variants: Published models with this backbone.
        architecture: Recognised from the tensors' shapes.
        form: The form that the weights are in.
        weights: Which set was looked at.
        stored_dtypes: How the file stores the weights.
        parameters: Number of weights in the stored form.
        deploy_parameters: Number of weights once fused.
        preprocessing: What is known of the input, or None where nothing says its size.
        flops: Multiply-adds of one image in the deploy form at that size, or None likewise.
        class_names: If stored.
        training: What ``meta`` tells of the training: epoch, iteration, time, framework version.
        notes: What was assumed.
    """

    kind: str
    path: str
    sha256: str
    variants: tuple[str, ...]
    architecture: Architecture
    form: Form
    weights: WeightSet
    stored_dtypes: tuple[str, ...]
    parameters: int
    deploy_parameters: int
    preprocessing: Preprocessing | None
    flops: int | None
    class_names: tuple[str, ...] | None
    training: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OnnxInspection:
    """An ONNX file.

    Attributes:
        kind: Always ``onnx``.
        path: The file.
        sha256: Of its content.
        size_bytes: Its size.
        producer: Who wrote it.
        opset: Version of the default operator set.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        parameters: Number of floating-point values and of int8 and float8 weights stored.
        flops: Multiply-adds of one image, counted as for checkpoints; None where a shape is unknown.
        nodes: Nodes by type and precision.
        provenance: The file's ``metadata_props``.
    """

    kind: str
    path: str
    sha256: str
    size_bytes: int
    producer: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    flops: int | None
    nodes: tuple[NodeCount, ...]
    provenance: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class EngineParity:
    """That an engine computes the reference's function, somewhere.

    Attributes:
        status: The verdict.
        created_utc: When.
        gpus: Of the machine.
    """

    status: Status
    created_utc: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BundleInspection:
    """A bundle.

    Attributes:
        kind: Always ``bundle``.
        path: Its folder.
        manifest: ``bundle.json``.
        flops: Multiply-adds of one image in the deploy form.
        deploy_parameters: Number of weights once fused.
        graphs: Every ONNX file that is as recorded.
        parity: The verdict of the stored parity report under the default limits; None where there is none.
        parity_utc: When that parity report was made.
        parity_failures: Why each of its candidates that failed did, runtimes that judge no file included.
        intact: Whether every file has the recorded sha256.
        problems: Those that do not.
        engine_parity: The stored parity report of each engine that has one, by the engine's file.
    """

    kind: str
    path: str
    manifest: Manifest
    flops: int
    deploy_parameters: int
    graphs: tuple[OnnxInspection, ...]
    parity: Status | None
    parity_utc: str | None
    intact: bool
    problems: tuple[str, ...]
    engine_parity: dict[str, EngineParity]
    parity_failures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineInspection:
    """An engine of a bundle.

    Attributes:
        kind: Always ``engine``.
        path: The file.
        artifact: Its record, engine metadata included.
        intact: Whether the file is the one that was built.
        fits: Whether preflight passes on this machine.
        findings: Why it does not.
        parity: The stored parity report of this very engine; None where there is none.
    """

    kind: str
    path: str
    artifact: EngineArtifact
    intact: bool
    fits: bool
    findings: tuple[Mismatch, ...]
    parity: EngineParity | None


Inspection = CheckpointInspection | OnnxInspection | BundleInspection | EngineInspection


def _inspect_checkpoint(path: Path, config: Path | None) -> CheckpointInspection:
    checkpoint = load_checkpoint(path)
    checkpoint = with_config(checkpoint, config)
    notes = list(checkpoint.notes)
    try:
        preprocessing = resolve_preprocessing(checkpoint, variant=None, image_size_px=None, notes=notes)
    except OptionError as err:
        preprocessing = None
        notes.append(err.message)
    cost = complexity(checkpoint.architecture, Form.DEPLOY, preprocessing.crop_px) if preprocessing else None
    return CheckpointInspection(
        kind="checkpoint",
        path=str(path),
        sha256=checkpoint.sha256,
        variants=tuple(variant.name for variant in checkpoint.variants),
        architecture=checkpoint.architecture,
        form=checkpoint.form,
        weights=checkpoint.weights,
        stored_dtypes=checkpoint.stored_dtypes,
        parameters=sum(value.numel() for value in checkpoint.state.values()),
        deploy_parameters=sum(prod(shape) for shape in checkpoint.architecture.shapes(Form.DEPLOY).values()),
        preprocessing=preprocessing,
        flops=cost.flops if cost else None,
        class_names=checkpoint.class_names,
        training={key: str(checkpoint.meta[key]) for key in _TOLD if key in checkpoint.meta},
        notes=tuple(notes),
    )


def _inspect_onnx(path: Path) -> OnnxInspection:
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(str(path))
    except Exception as err:  # protobuf's, onnx's and the system's own errors
        raise RuntimeFailureError(f"{path} is not a valid ONNX file: {err}") from err
    kinds = onnx.TensorProto
    floating = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE}
    quantized = {kinds.INT8, kinds.FLOAT8E4M3FN}
    return OnnxInspection(
        kind="onnx",
        path=str(path),
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        producer=f"{graph.producer_name} {graph.producer_version}".strip(),
        opset=opset_of(graph),
        inputs=tuple(map(spec_of, graph.graph.input)),
        outputs=tuple(map(spec_of, graph.graph.output)),
        parameters=sum(
            prod(tensor.dims)
            for tensor in graph.graph.initializer
            if tensor.data_type in floating or (tensor.data_type in quantized and len(tensor.dims) > 1)
        ),
        flops=graph_flops(graph),
        nodes=node_counts(graph),
        provenance={item.key: item.value for item in graph.metadata_props},
    )


def _stored_parity(bundle: Bundle, problems: list[str], kind: str = "parity") -> ParityResult | None:
    try:
        return stored_parity(bundle, kind)
    except BundleIntegrityError:
        return None  # listed already
    except BundleError as err:
        problems.append(err.message)
        return None


def _inspect_bundle(path: Path) -> BundleInspection:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    problems, intact = [], set()
    for record in manifest.files:
        try:
            bundle.path_of(record)
            intact.add(record.path)
        except BundleIntegrityError as err:
            problems.append(err.message)
    parity = _stored_parity(bundle, problems)
    parities = [(engine, _parity_of(bundle, engine, problems)) for engine in manifest.engines]
    model = manifest.model
    cost = complexity(model.architecture, Form.DEPLOY, model.preprocessing.crop_px)
    return BundleInspection(
        kind="bundle",
        path=str(path),
        manifest=manifest,
        flops=cost.flops,
        deploy_parameters=cost.parameters,
        graphs=tuple(_inspect_onnx(path / g.file.path) for g in manifest.onnx if g.file.path in intact),
        parity=parity.status if parity else None,
        parity_utc=parity.created_utc if parity else None,
        parity_failures=tuple(map(why_failed, parity.failed)) if parity else (),
        intact=not problems,
        problems=tuple(problems),
        engine_parity={engine.file.path: found for engine, found in parities if found is not None},
    )


def _parity_of(bundle: Bundle, engine: EngineArtifact, problems: list[str]) -> EngineParity | None:
    """The stored parity report of this very engine; one way of launching it that failed makes it failed."""
    parity = _stored_parity(bundle, problems, engine.parity_kind)
    if parity is None or {c.artifact_sha256 for c in parity.candidates} != {engine.file.sha256}:
        return None
    return EngineParity(status=parity.status, created_utc=parity.created_utc, gpus=parity.machine.gpus)


def _inspect_engine(path: Path) -> EngineInspection:
    try:
        bundle = Bundle.open(path.parent)
    except BundleError as err:
        raise BundleError(
            f"{path} lies in no bundle, and a plan says nothing of itself: {err.message}",
            details=err.details,
            remedy="Inspect it in the bundle that it was built in, or build it with `riformer-deploy build`.",
        ) from err
    artifact = engine_of(bundle, path)
    findings = preflight_here(artifact, path)
    return EngineInspection(
        kind="engine",
        path=str(path),
        artifact=artifact,
        intact=not check_file(artifact, path),
        fits=not findings,
        findings=findings,
        parity=_parity_of(bundle, artifact, []),
    )


def inspect_file(path: Path | str, *, config: Path | None = None) -> Inspection:
    """Say what a file or folder is.

    Args:
        path: A checkpoint, an ONNX file, a bundle's engine, a bundle's folder or its ``bundle.json``.
        config: mmengine's config file of a checkpoint.

    Raises:
        CheckpointError: It looks like a checkpoint and is not usable.
        BundleError: It is a folder and not a bundle, or an engine that the bundle around it does not list.
        RuntimeFailureError: It looks like ONNX and is not valid.
        OptionError: The config cannot be read, or it is no checkpoint.
    """
    path = Path(path)
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as err:  # a name that the system refuses
        raise CheckpointUnreadableError(f"{path} cannot be read: {err.strerror}") from err
    if not there:
        raise CheckpointUnreadableError(f"There is no file {path}.")
    if config is not None and (folder or path.name == MANIFEST or path.suffix.lower() in {*_PLANS, ".onnx"}):
        raise OptionError(
            f"A config belongs to a checkpoint, and {path} is none.", remedy="Leave --config away."
        )
    if folder:
        return _inspect_bundle(path)
    if path.name == MANIFEST:
        return _inspect_bundle(path.parent)
    if path.suffix.lower() in _PLANS:
        return _inspect_engine(path)
    if path.suffix.lower() == ".onnx":
        return _inspect_onnx(path)
    return _inspect_checkpoint(path, config)
