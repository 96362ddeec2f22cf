"""What a bundle held before an export: what of it stays beside what is made anew, and what is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.kept_results import kept_results
from riformer_deploy.bundle.artifacts import FileRecord, OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.manifest import Manifest, ModelRecord, Source
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import BundleConflictError, BundleError
from riformer_deploy.common.version import VERSION


@dataclass(frozen=True, kw_only=True)
class KeptArtifacts:
    """What the new bundle holds of graphs, and of engines and results that were made before.

    Attributes:
        onnx: The new graphs and those that stay, in the order of their precisions.
        engines: Those that were built from one of these graphs, byte for byte.
        results: Those that are about what the new bundle holds, too, by kind.
        dropped: What does not stay, each with the reason.
    """

    onnx: tuple[OnnxArtifact, ...]
    engines: tuple[EngineArtifact, ...]
    results: dict[str, FileRecord]
    dropped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PreviousBundle:
    """A bundle as it was before an export; all is empty where there was none.

    Attributes:
        onnx: Graphs of precisions that are not made anew, and that fit the new ones.
        lost: Graphs of precisions that are not made anew and do not fit, each with the reason.
        engines: Every engine that it held.
        samples: Images for parity reports, where they are still the model's.
        bundle: The bundle itself.
        changed: Why a picture's answers may be others than they were, or nothing.
    """

    onnx: tuple[OnnxArtifact, ...] = ()
    lost: tuple[str, ...] = ()
    engines: tuple[EngineArtifact, ...] = ()
    samples: FileRecord | None = None
    bundle: Bundle | None = None
    changed: str = ""

    def kept_beside(
        self, made: Sequence[OnnxArtifact], weights: Sequence[WeightsArtifact], staged: Path
    ) -> KeptArtifacts:
        """What stays beside new graphs.

        Args:
            made: The new graphs.
            weights: The new bundle's, the reference first.
            staged: The folder that the new files are gathered in.
        """
        order = list(Precision)
        onnx = tuple(sorted((*self.onnx, *made), key=lambda artifact: order.index(artifact.precision)))
        graphs = {artifact.file.sha256 for artifact in onnx}
        engines = tuple(engine for engine in self.engines if engine.file.parent_sha256 in graphs)
        dropped = [
            f"{engine.file.path}: it was built from a model that is replaced"
            for engine in self.engines
            if engine not in engines
        ]
        results: dict[str, FileRecord] = {}
        if self.bundle is not None:
            present = graphs | {item.file.sha256 for item in weights}
            present |= {item.file.sha256 for item in engines}
            results, more = kept_results(
                self.bundle, present, weights[0].file.sha256, staged, answers_changed=self.changed
            )
            dropped += more
        return KeptArtifacts(onnx=onnx, engines=engines, results=results, dropped=tuple(dropped))


def read_previous_bundle(
    directory: Path, model: ModelRecord, source: Source, made: Sequence[Precision], batch: int | None
) -> PreviousBundle:
    """What the folder holds of an earlier export.

    Args:
        directory: The bundle's folder; there need not be one, and what cannot be read counts as none.
        model: What the model is, now.
        source: The checkpoint, now.
        made: Precisions that are made anew.
        batch: The batch of the new graphs: all graphs of a bundle take the same.
    """
    try:
        bundle = Bundle.open(directory)
    except BundleError:
        return PreviousBundle()
    before = bundle.manifest
    changed = changed_since(before, model, source)
    stay, lost = [], []
    for artifact in before.onnx:
        if artifact.precision in made:
            continue
        if reason := changed or _other_batch(artifact, batch):
            lost.append(f"{artifact.file.path}: {reason}")
        else:
            stay.append(artifact)
    return PreviousBundle(
        onnx=tuple(stay),
        lost=tuple(lost),
        engines=before.engines,
        samples=None if changed else before.samples,
        bundle=bundle,
        changed=changed or ("its classes had other names" if before.model != model else ""),
    )


def changed_since(before: Manifest, model: ModelRecord, source: Source) -> str:
    """Why no graph of an earlier bundle fits the new ones, or nothing.

    Args:
        before: The earlier bundle's.
        model: What the model is, now.
        source: The checkpoint, now.
    """
    if (before.source.sha256, before.source.weights) != (source.sha256, source.weights):
        return "it was made of other weights"
    if before.tool_version != VERSION:
        return f"it was made by version {before.tool_version} of this toolkit"
    if before.model.preprocessing != model.preprocessing:
        return "it takes images that are prepared differently"
    return ""


def _other_batch(artifact: OnnxArtifact, batch: int | None) -> str:
    if artifact.batch == batch:
        return ""
    return f"its batch is {artifact.batch or 'dynamic'}, that of the new models {batch or 'dynamic'}"


def refuse_losses(directory: Path, previous: PreviousBundle) -> None:
    """Refuse to drop graphs that a bundle holds.

    Args:
        directory: The bundle's folder.
        previous: What it holds.

    Raises:
        BundleConflictError: Some would be lost.
    """
    if previous.lost:
        raise BundleConflictError(
            f"{directory} holds models that do not fit the new ones; they would be lost.",
            details=previous.lost,
            remedy="Export these precisions too, choose another -o, or say --force to drop them.",
        )


def dropped_notes(dropped: Sequence[str]) -> list[str]:
    """Notes for the user of what the new bundle does not hold any more."""
    return [f"dropped from the bundle: {text}" for text in dropped]
