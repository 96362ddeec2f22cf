"""Feature vectors and maps of a bundle's model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from riformer_deploy.backends.base import Candidate, Outputs, Runtime, run_all
from riformer_deploy.bundle.artifacts import OnnxArtifact, TensorSpec
from riformer_deploy.bundle.engine_metadata import EngineArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleError
from riformer_deploy.data.transforms import Images
from riformer_deploy.model.architecture import LAST_STAGE, map_name
from riformer_deploy.serving.runner import only_runner

_LAST = "backbone.norm6"


def feature_runner(
    bundle: Bundle,
    group: Group,
    *,
    stage: int | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
) -> Candidate:
    """The model to run; for pooled features of a graph or an engine one that gives them.

    Args:
        bundle: Holds the models.
        group: The kind of model.
        stage: As :class:`FeatureExtractor` takes it.
        precision: What it computes in; None for any.
        threads: CPU threads that it may use; None leaves the choice to what runs it.

    Raises:
        BundleError: None gives them, or as :func:`~riformer_deploy.serving.runner.only_runner`.
        EngineUnfitError: It holds engines, and none fits this machine or all of them failed parity.
        MissingDependencyError: What runs it is not installed.
    """
    if group is Group.TORCH or stage is not None:
        return only_runner(bundle, group, precision=precision, threads=threads)
    artifacts: tuple[OnnxArtifact | EngineArtifact, ...] = (*bundle.manifest.onnx, *bundle.manifest.engines)
    able = {item.file.path for item in artifacts if _poolable(item.outputs) is not None}
    if not able:
        raise BundleError(
            f"No model of {bundle.directory} gives features.",
            remedy="Export one with --output-form features or --out-indices, or say --with torch.",
        )
    return only_runner(bundle, group, files=able, precision=precision, threads=threads)


def _poolable(outputs: Iterable[TensorSpec]) -> str | None:
    """The output that features are, or are pooled from: the last stage's map; None where there is neither."""
    return next((out.name for out in outputs if out.name in ("features", map_name(LAST_STAGE))), None)


class _Tapped:
    """A runtime whose output is what one of its blocks gives."""

    def __init__(self, runtime: Runtime, tensor: str) -> None:
        self._runtime, self._tensor = runtime, tensor

    def run(self, images: Images) -> Outputs:
        return {"features": self._runtime.tap(images, (self._tensor,))[self._tensor]}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        return self._runtime.tap(images, tensors)

    def close(self) -> None:
        self._runtime.close()


class FeatureExtractor:
    """A model that is ready to give features; a context manager.

    Args:
        candidate: From :func:`feature_runner`.
        group: What kind it is.
        blocks: Names of the blocks of each stage.
        stage: 1 to 4 for the map after that stage's last block; None for pooled features.
    """

    def __init__(
        self, candidate: Candidate, group: Group, blocks: Sequence[Sequence[str]], stage: int | None = None
    ) -> None:
        self._batches, self._pools = candidate.batches, stage is None
        runtime = candidate.open()
        if stage is not None:
            runtime = _Tapped(runtime, blocks[stage - 1][-1])
        elif group is Group.TORCH:
            runtime = _Tapped(runtime, _LAST)
        self._runtime = runtime

    def features(self, images: Images) -> NDArray[np.float32]:
        """Features (N, C), or with a stage its maps (N, C, H, W).

        Args:
            images: (N, 3, H, W) float32, normalised, N at least 1.

        Raises:
            RuntimeFailureError: The model cannot run them.
        """
        outputs = run_all(self._runtime, images, self._batches)
        given = outputs["features"] if "features" in outputs else outputs[map_name(LAST_STAGE)]
        pooled = given.mean((2, 3)) if self._pools and given.ndim == 4 else given
        return pooled.astype(np.float32)

    def close(self) -> None:
        """Give memory and threads back."""
        self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
