"""What ``inspect`` says of a file, as records."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.bundle.artifacts import NodeCount, TensorSpec
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.accuracy_results import ArtifactAccuracy
from riformer_deploy.evaluation.latency_rounds import Ratio
from riformer_deploy.evaluation.results import Status
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.trt.mismatch import Mismatch


@dataclass(frozen=True, kw_only=True)
class CheckpointInspection:
    """A checkpoint file.

    Attributes:
        kind: Always ``checkpoint``.
        path: The file.
        config: The config file that it was read with; None where only what it stores counts.
        sha256: Of its content.
        variants: Published models with this backbone.
        architecture: Recognised from the tensors' shapes.
        out_indices: Positions in ``backbone.network`` that it holds a norm for: what ``export --out-indices``
            can give.
        form: The form that the weights are in.
        weights: Which set was looked at.
        stored_dtypes: How the file stores the weights.
        parameters: Number of weights in the stored form.
        deploy_parameters: Number of weights once fused.
        preprocessing: What is known of the input, or None where nothing says its size.
        flops: Multiply-adds of one image in the deploy form at that size; None where nothing says it.
        class_names: If stored.
        training: What ``meta`` tells of the training: epoch, iteration, time, framework version.
        notes: What was assumed.
    """

    kind: str
    path: str
    config: str | None
    sha256: str
    variants: tuple[str, ...]
    architecture: Architecture
    out_indices: tuple[int, ...]
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
        provenance: The other entries of the file's ``metadata_props``.
        preprocessing: What the file says of preprocessing; None where it says nothing, and in a bundle, which
            says it once.
        class_names: What the file says of the classes; None as for ``preprocessing``.
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
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None


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
class ShippedArtifact:
    """What to ship for one batch size: the fastest artifact that failed neither parity nor the accuracy gate.

    Attributes:
        batch: Images per call.
        name: The way that it is run.
        file: The bundle's file.
        median_ms: Per call.
        baseline: The strongest baseline of the batch size, if one was measured.
        ratio: How many times as fast as the baseline.
        parity: Its verdict; None where it was not verified.
        top1_percent: Its accuracy, if it was measured.
    """

    batch: int
    name: str
    file: str | None
    median_ms: float
    baseline: str | None
    ratio: Ratio | None
    parity: Status | None
    top1_percent: float | None


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
        parity: The verdict of the stored parity report under the default limits; None where there is none
            that verifies what the bundle holds.
        parity_utc: When that parity report was made.
        parity_failures: Why each of its candidates that failed did, runtimes that judge no file included.
        parity_not_verified: Why the stored report does not verify what the bundle holds, if it does not.
        intact: Whether every file has the recorded sha256.
        problems: Those that do not.
        engine_parity: The stored parity report of each engine that has one, by the engine's file.
        foreign: Names in the folder that the bundle does not list, such as what a killed writer left.
        shipped: What to ship for each batch size, where latencies were measured.
        accuracy: Of every artifact that it was measured of.
        not_verified: What the bundle holds no evidence of, each in one sentence.
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
    parity_not_verified: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    shipped: tuple[ShippedArtifact, ...] = ()
    accuracy: tuple[ArtifactAccuracy, ...] = ()
    not_verified: tuple[str, ...] = ()


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
