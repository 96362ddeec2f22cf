"""``bundle.json``: what a bundle is made from, and every artifact in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from riformer_deploy.bundle.artifacts import MANIFEST, FileRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.common.enums import WeightSet
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.model.architecture import Architecture, Form

SCHEMA_VERSION = 2
_MOST_METADATA_BYTES = 16 * 2**20


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
        engines: TensorRT engines built from them; one per precision and backend.
        samples: Normalised images that parity reports run on, float32 (N, 3, H, W); None for synthetic ones.
        reference_outputs: The reference's outputs on the images of parity reports, float64 (``.npz``); None
            where none were kept.
        results: Files of results, by kind (``parity``, ``latency``).
        libraries: Versions of the libraries that took part.
    """

    schema_version: int
    tool_version: str
    created_utc: str
    model: ModelRecord
    source: Source
    weights: tuple[WeightsArtifact, ...]
    onnx: tuple[OnnxArtifact, ...]
    engines: tuple[EngineArtifact, ...] = ()
    samples: FileRecord | None = None
    reference_outputs: FileRecord | None = None
    results: dict[str, FileRecord] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> WeightsArtifact:
        """The weights that everything is compared with: the training form, if the checkpoint was in it."""
        return self.weights[0]

    @property
    def out_indices(self) -> tuple[int, ...]:
        """Positions in ``backbone.network`` whose maps any of the graphs gives, ascending."""
        return tuple(sorted({index for graph in self.onnx for index in graph.lowering.out_indices}))

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"schema version {self.schema_version}; this toolkit reads version {SCHEMA_VERSION}"
            )
        paths = [record.path for record in self.files]
        if not self.weights or not self.onnx:
            raise ValueError("a bundle holds weights and at least one ONNX model")
        if self.reference.form is not self.source.form:
            raise ValueError(f"the first weights are the reference and must be in {self.source.form} form")
        graphs = {artifact.file.sha256 for artifact in self.onnx}
        if orphans := [e.file.path for e in self.engines if e.file.parent_sha256 not in graphs]:
            raise ValueError(f"engines of graphs that the bundle does not hold: {', '.join(orphans)}")
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"listed more than once: {', '.join(twice)}")

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the bundle but ``bundle.json`` itself."""
        weights = (artifact.file for artifact in self.weights)
        graphs = (artifact.file for artifact in self.onnx)
        parity = tuple(item for item in (self.samples, self.reference_outputs) if item is not None)
        engines = (record for artifact in self.engines for record in artifact.files)
        return (*weights, *graphs, *engines, *parity, *self.results.values())


def architecture_problem(manifest: Manifest) -> str | None:
    """Why weights files cannot hold the recorded architecture, by their sizes alone; None where they can.

    Args:
        manifest: Weights are float32 values, and some metadata.
    """
    for weights in manifest.weights:
        values = sum(map(prod, manifest.model.architecture.shapes(weights.form).values()))
        least, most = 4 * values, 4 * values * 1.1 + _MOST_METADATA_BYTES
        if not least <= weights.file.size_bytes <= most:
            return (
                f"{weights.file.path} holds {weights.file.size_bytes:,} bytes; {values:,} weights, as the "
                f"architecture in {MANIFEST} has in {weights.form} form, take {least:,}."
            )
    return None
