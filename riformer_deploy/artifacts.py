"""What a bundle holds, as records: every artifact names its file, its sha256 and its parent's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from riformer_deploy.architecture import Architecture, Form
from riformer_deploy.variants import Preprocessing

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"


class Precision(StrEnum):
    """The precision that a lowered model computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class WeightSet(StrEnum):
    """Which of a checkpoint's sets of weights was taken."""

    ONLY = "only"
    """The checkpoint holds one set."""
    AVERAGED = "averaged"
    """The exponential moving average, which mmengine's EMAHook stores as ``state_dict``."""
    RAW = "raw"
    """The weights that the optimiser last wrote, which EMAHook stores as ``ema_state_dict``."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: Its name in the graph.
        dtype: NumPy's name of its type.
        shape: Sizes; a string names a dynamic one.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of the bundle.

    Attributes:
        path: Its name; a bundle has no subfolders.
        sha256: Of its content.
        size_bytes: Its size.
        parent_sha256: Of the file that it was made from.
    """

    path: str
    sha256: str
    size_bytes: int
    parent_sha256: str

    def __post_init__(self) -> None:
        plain = PurePosixPath(self.path).name == self.path and self.path.isprintable()
        reserved = self.path == MANIFEST or self.path.startswith(".")
        if not self.path or not plain or reserved or "\\" in self.path:
            raise ValueError(f"{self.path!r} is not the plain name of a file in the bundle")


@dataclass(frozen=True, kw_only=True)
class WeightsArtifact:
    """Weights as plain PyTorch tensors.

    Attributes:
        file: The ``.pth`` file; ``torch.load(weights_only=True)`` reads it.
        form: The form of the state dict.
    """

    file: FileRecord
    form: Form


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """What a lowering was calibrated on.

    Attributes:
        source: What the user named, without its folder.
        random: Whether the images were random, so that accuracy on real ones is not proven.
        images: How many.
        key: sha256 of everything that the calibration depends on.
        method: How ranges were chosen.
    """

    source: str
    random: bool
    images: int
    key: str
    method: str


@dataclass(frozen=True, kw_only=True)
class LoweringRecord:
    """How a graph was lowered.

    Attributes:
        norm: Operators that compute the norms: ``instance``, ``group`` or ``moments``.
        base: What everything that is not int8, and not a statistic, computes in.
        io: Type of floating-point inputs and outputs.
        input_form: ``normalised`` or ``uint8``.
        output_form: ``logits``, ``probabilities``, ``features`` or ``topk``.
        topk: Number of classes where the output is ``topk``.
        float32_blocks: Blocks kept in float32 because half precision would overflow.
        unquantized: Layers kept in the base precision.
        equalized: Layers whose input channels are scaled before they are quantised.
        quantized_residual: Whether the inputs of residual additions are int8 too.
        calibration: What it was calibrated on, where it was.
    """

    norm: str
    base: Precision
    io: Precision
    input_form: str
    output_form: str
    topk: int | None
    float32_blocks: tuple[str, ...]
    unquantized: tuple[str, ...]
    equalized: tuple[str, ...]
    quantized_residual: bool
    calibration: CalibrationRecord | None


@dataclass(frozen=True, kw_only=True)
class OnnxArtifact:
    """An exported graph.

    Attributes:
        file: The ``.onnx`` file.
        precision: What it computes in.
        opset: Version of the default operator set.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        lowering: How it came to its precision.
    """

    file: FileRecord
    precision: Precision
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lowering: LoweringRecord

    def __post_init__(self) -> None:
        if not self.inputs or not self.inputs[0].shape or not self.outputs:
            raise ValueError(f"{self.file.path} is recorded without inputs or outputs")

    @property
    def batch(self) -> int | None:
        """The fixed batch size, or None when it is dynamic."""
        size = self.inputs[0].shape[0]
        return size if isinstance(size, int) else None


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint that a bundle was made from.

    Attributes:
        file_name: Its name, without the folder.
        sha256: Of its content.
        form: The form that its weights were in.
        weights: Which set of weights was taken.
        weights_sha256: Over the names, shapes and float32 values of the weights taken.
    """

    file_name: str
    sha256: str
    form: Form
    weights: WeightSet
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What the model is.

    Attributes:
        variant: Name of the published model whose shape and input size it has, if any.
        architecture: Its shape.
        preprocessing: What is done to an image first.
        class_names: One per output, if known.
    """

    variant: str | None
    architecture: Architecture
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None

    def __post_init__(self) -> None:
        count = self.architecture.num_classes
        if self.class_names is not None and len(self.class_names) != count:
            raise ValueError(f"{len(self.class_names)} class names for {count} classes")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``bundle.json``.

    Attributes:
        schema_version: Of this record.
        tool_version: The toolkit that wrote the bundle.
        created_utc: When, in ISO 8601.
        model: What the model is.
        source: What it was made from.
        weights: Weights in each form kept: the reference first.
        onnx: Exported graphs.
        samples: Normalised images that proofs run on, float32 (N, 3, H, W); None for synthetic ones.
        results: Files of evidence, by kind (``parity``, ``latency``).
        libraries: Versions of the libraries that took part.
    """

    schema_version: int
    tool_version: str
    created_utc: str
    model: ModelRecord
    source: Source
    weights: tuple[WeightsArtifact, ...]
    onnx: tuple[OnnxArtifact, ...]
    samples: FileRecord | None = None
    results: dict[str, FileRecord] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"schema version {self.schema_version}; this toolkit reads version {SCHEMA_VERSION}"
            )
        paths = [record.path for record in self.files]
        if not self.weights or not self.onnx:
            raise ValueError("a bundle holds weights and at least one ONNX model")
        if self.weights[0].form is not self.source.form:
            raise ValueError(f"the first weights are the reference and must be in {self.source.form} form")
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"listed more than once: {', '.join(twice)}")

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the bundle but ``bundle.json`` itself."""
        weights = (artifact.file for artifact in self.weights)
        graphs = (artifact.file for artifact in self.onnx)
        samples = () if self.samples is None else (self.samples,)
        return (*weights, *graphs, *samples, *self.results.values())
