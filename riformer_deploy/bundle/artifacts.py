"""What a bundle holds, as records: every artifact names its file, its sha256 and its parent's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision
from riformer_deploy.model.architecture import Form

MANIFEST = "bundle.json"
FAILED_MANIFEST = "failed-export.json"
"""In place of :data:`MANIFEST` in a folder that holds an export whose parity failed."""


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
        if not self.path or not plain or reserved or "\\" in self.path or len(self.path.encode()) > 255:
            raise ValueError(f"{self.path[:80]!r} is not the plain name of a file in the bundle")


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
class NodeCount:
    """Nodes of one type that compute in one precision.

    Attributes:
        op_type: ONNX's name of the operator.
        dtype: Type of the first output.
        count: How many.
    """

    op_type: str
    dtype: str
    count: int


@dataclass(frozen=True, kw_only=True)
class GraphContents:
    """What a graph holds, so that a bundle can be described without reading its graphs.

    Attributes:
        producer: Who wrote it.
        parameters: Number of floating-point values and of int8 and float8 weights stored.
        flops: Multiply-adds of one image; None where a shape is unknown.
        nodes: Nodes by type and precision.
        provenance: The file's ``metadata_props`` but preprocessing and class names, which are the model's.
    """

    producer: str
    parameters: int
    flops: int | None
    nodes: tuple[NodeCount, ...]
    provenance: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class OnnxArtifact:
    """An exported graph.

    Attributes:
        file: The ``.onnx`` file.
        opset: Version of the default operator set.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        contents: What else is in it.
        lowering: How it came to its precision: enough to rebuild the model that it was exported from.
    """

    file: FileRecord
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    contents: GraphContents
    lowering: LoweringConfig

    def __post_init__(self) -> None:
        if not self.inputs or not self.inputs[0].shape or not self.outputs:
            raise ValueError(f"{self.file.path} is recorded without inputs or outputs")

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self.lowering.precision

    @property
    def batch(self) -> int | None:
        """The fixed batch size, or None when it is dynamic."""
        size = self.inputs[0].shape[0]
        return size if isinstance(size, int) else None
