"""Builds a config as an artifact of the target: its graph, and for TensorRT the engine of it."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.build import build_engines
from riformer_deploy.api.bundle_assembly import ExportInputs, stage_graphs
from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.bundle.artifacts import MANIFEST, OnnxArtifact
from riformer_deploy.bundle.engine_metadata import BatchProfile
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Baselines, Group, RuntimeKind
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.progress import Progress
from riformer_deploy.common.replacing import replacing
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.data.calibration import CalibrationSet
from riformer_deploy.data.datasets import Dataset
from riformer_deploy.export.onnx_export import OnnxOptions
from riformer_deploy.export.option_checks import check_config, least_opset
from riformer_deploy.model.network import RIFormer
from riformer_deploy.quantization.accuracy_control import calibration_config
from riformer_deploy.quantization.calibration import CalibrationResult, calibrate
from riformer_deploy.quantization.observations import Observations
from riformer_deploy.quantization.resolving import resolve_lowering
from riformer_deploy.trt.build_options import BuildOptions

RUNTIMES = {
    Group.ONNX: RuntimeKind.ONNX_RUNTIME,
    Group.OPENVINO: RuntimeKind.OPENVINO,
    Group.ENGINE: RuntimeKind.TENSORRT,
}
"""What a bundle can be tuned for, by the group that runs it."""
_KEPT = 8
"""Built configs whose files are kept; others are built again if they are needed again."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A config as an artifact, in a folder of its own that is a bundle but for the weights.

    Attributes:
        bundle: Holds the one graph, and its engine where the target is TensorRT.
        graph: That graph.
    """

    bundle: Bundle
    graph: OnnxArtifact


@dataclass(frozen=True, kw_only=True)
class TuneSetup:
    """What configs are built of and judged on.

    Attributes:
        bundle: That is tuned.
        model: Its model in folded form, float32.
        images: Calibration images, which accuracy is judged on, too.
        group: What runs the artifacts: ``onnx``, ``openvino`` or ``engine``.
        batches: Batch sizes to be fast at.
        threads: CPU threads.
        dataset: Labelled pictures; None for none.
    """

    bundle: Bundle
    model: RIFormer
    images: CalibrationSet
    group: Group
    batches: tuple[int, ...]
    threads: int
    dataset: Dataset | None = None


class ArtifactBuilder:
    """Exports configs and builds their engines, each in a folder of its own.

    Args:
        setup: What they are built of.
        work: An empty folder.
        progress: Called with each step.
    """

    def __init__(self, setup: TuneSetup, work: Path, progress: Progress) -> None:
        self._setup, self._work, self._progress = setup, work, progress
        self._built: dict[str, Built] = {}
        self._calibrations: dict[str, CalibrationResult] = {}
        self._observed = Observations(setup.model, setup.images, progress, several=True)

    def built(self, config: LoweringConfig) -> Built:
        """A config's artifact; what is no longer there is built again.

        Args:
            config: As asked for.

        Raises:
            ExportError: It cannot be exported.
            OptionError: It cannot be honoured.
            EngineBuildError: No engine can be built of it.
        """
        key = repr(config.heeded())
        if key in self._built:
            self._built[key] = self._built.pop(key)  # the last used
            return self._built[key]
        while len(self._built) >= _KEPT:
            oldest = self._built.pop(next(iter(self._built)))
            shutil.rmtree(oldest.bundle.directory, ignore_errors=True)
        folder = self._work / f"{len(list(self._work.iterdir()))}-{time.monotonic_ns()}"
        folder.mkdir()
        try:
            self._built[key] = self._build(config, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._built[key]

    def calibration_of(self, config: LoweringConfig) -> CalibrationResult | None:
        """What a config's ranges follow from; None where it needs no calibration."""
        if not config.needs_calibration:
            return None
        wanted = calibration_config([config])
        key = dump_json(wanted)
        if key not in self._calibrations:
            weights = self._setup.bundle.manifest.source.weights_sha256
            self._calibrations[key] = calibrate(self._observed, weights, wanted)
        return self._calibrations[key]

    def _build(self, config: LoweringConfig, folder: Path) -> Built:
        setup, manifest = self._setup, self._setup.bundle.manifest
        check_config(config, setup.model)
        calibration = self.calibration_of(config)
        resolved = resolve_lowering(config, calibration)
        graph = next((item for item in manifest.onnx if item.lowering == resolved), None)
        if graph is None:
            graph = self._export(config, calibration, folder)
        else:  # what the bundle ships is what is measured
            shutil.copyfile(setup.bundle.graph_path(graph), folder / graph.file.path)
        own = dataclasses.replace(
            manifest, onnx=(graph,), engines=(), samples=None, reference_outputs=None, results={}
        )
        if setup.group is Group.ENGINE:
            own = self._with_engine(own, folder)
        return Built(bundle=Bundle(folder, own), graph=graph)

    def _export(
        self, config: LoweringConfig, calibration: CalibrationResult | None, folder: Path
    ) -> OnnxArtifact:
        manifest = self._setup.bundle.manifest
        options = OnnxOptions(
            image_size_px=manifest.model.preprocessing.crop_px,
            batch=manifest.onnx[0].batch,
            opset=max(min(item.opset for item in manifest.onnx), least_opset(config)),
        )
        inputs = ExportInputs(
            model=self._setup.model,
            record=manifest.model,
            source=manifest.source,
            parent_sha256=manifest.reference.file.sha256,
            calibration=calibration,
        )
        (graph,) = stage_graphs(folder, inputs, [config], options, self._progress)
        return graph

    def _with_engine(self, manifest: Manifest, folder: Path) -> Manifest:
        """Build the engine of the one graph; one profile for the batches up to each that is to be fast."""
        with replacing(folder / MANIFEST) as partial:
            partial.write_text(dump_json(manifest), encoding="utf-8")
        sizes = sorted(self._setup.batches)
        profiles = tuple(
            BatchProfile(minimum=before + 1, optimum=size, maximum=size)
            for before, size in zip((0, *sizes), sizes, strict=False)
        )
        fixed = manifest.onnx[0].batch is not None
        report = build_engines(folder, BuildOptions(profiles=() if fixed else profiles), self._progress)
        return dataclasses.replace(manifest, engines=report.engines)

    def candidate(self, built: Built) -> Candidate:
        """An artifact as the target runs it.

        Args:
            built: From :meth:`built`.

        Raises:
            RuntimeFailureError: The target cannot run it.
        """
        setup = self._setup
        gpu = GpuOptions(required=True, cuda_graphs=(True,), baselines=Baselines.NONE)
        selected = select_candidates(built.bundle, (setup.group,), threads=setup.threads, gpu=gpu)
        wanted = RUNTIMES[setup.group]
        usable = [item for item in selected.candidates if item.config.runtime is wanted]
        if not usable:
            reasons = [item.reason for item in selected.skipped if item.config.runtime is wanted]
            raise RuntimeFailureError("; ".join(reasons) or f"{wanted} cannot run it here")
        return usable[0]
