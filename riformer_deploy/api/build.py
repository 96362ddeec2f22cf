"""The bundle's graphs as engines: built, given engine metadata, and put beside them."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from riformer_deploy.api.kept_results import kept_results
from riformer_deploy.bundle.artifacts import FileRecord, OnnxArtifact
from riformer_deploy.bundle.engine_metadata import (
    BatchProfile,
    BuildSettings,
    EngineArtifact,
    EngineMetadata,
    TensorRTFlavor,
)
from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file, staging, update
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import (
    BundleChangedError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.common.progress import Progress, silent
from riformer_deploy.system.cuda_driver import Driver, query_driver
from riformer_deploy.system.nvml import read_gpu
from riformer_deploy.trt.bindings import TensorRT, load
from riformer_deploy.trt.build_options import (
    BuildOptions,
    choose_backend,
    graphs_of,
    profiles_of,
    refuse_precisions,
    refuse_unfit,
    require_gpu_at_hand,
    unsupported_gpu,
)
from riformer_deploy.trt.builder import BuildRequest, BuiltPlan, build_plan
from riformer_deploy.trt.engine import Engine
from riformer_deploy.trt.timing_cache import read_cache, write_cache
from riformer_deploy.trt.trtexec import command_lines

__all__ = [
    "BatchProfile",
    "BuildOptions",
    "BuildReport",
    "BuildSettings",
    "TensorRTFlavor",
    "build_engines",
    "trtexec_lines",
]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What ``build`` wrote.

    Attributes:
        bundle: The bundle's folder.
        engines: The new engines.
        warnings: That they will not run here, where that is known; then what the builder warned of,
            engine by engine.
        dropped: Results of engines that were replaced, each with the reason.
    """

    bundle: str
    engines: tuple[EngineArtifact, ...]
    warnings: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def _metadata(
    bundle: Bundle,
    graph: OnnxArtifact,
    trt: TensorRT,
    driver: Driver,
    options: BuildOptions,
    built: BuiltPlan,
) -> EngineMetadata:
    gpu = driver.gpus[0] if driver.gpus else None
    state = read_gpu()[0] if gpu is not None else None
    return EngineMetadata(
        backend=trt.backend,
        backend_version=trt.version,
        backend_cuda=trt.cuda,
        onnx_sha256=graph.file.sha256,
        weights_sha256=bundle.manifest.source.weights_sha256,
        driver_cuda=driver.cuda_version,
        gpu=None if gpu is None else gpu.name,
        gpu_compute_capability=None if gpu is None else gpu.compute_capability,
        profiles=profiles_of(graph, options.profiles),
        settings=options.settings,
        build_ms=built.build_ms,
        network_layers=dict(built.network_layers),
        engine_layers=None,
        driver_version=None if state is None else state.driver,
    )


def _looked_into(trt: TensorRT, plan: bytes, what: str, settings: BuildSettings) -> tuple[int, str] | None:
    """Number of layers and the inspector's account of them, where the engine loads here."""
    try:
        engine = Engine(trt, plan, what=what, host_code=settings.version_compatible)
    except RuntimeFailureError as err:
        _LOG.info("the new engine cannot be looked into here: %s", err.message)
        return None
    try:
        return engine.num_layers, engine.layers_json()
    finally:
        engine.close()


def _log_text(built: BuiltPlan, onnx: Path) -> str:
    """What the builder said; the graph by its name alone, since the log travels with the bundle."""
    lines = (f"[{severity}] {text}\n" for severity, text in built.log)
    return "".join(lines).replace(str(onnx), onnx.name)


def _stage(
    staged: Path,
    bundle: Bundle,
    graph: OnnxArtifact,
    trt: TensorRT,
    options: BuildOptions,
    progress: Progress,
) -> tuple[EngineArtifact, list[str]]:
    """Build one engine into the staging folder."""
    warnings: list[str] = []
    driver = query_driver()
    stem = f"model.{graph.precision}.{trt.backend}"
    onnx = bundle.place_of(graph.file)
    built = build_plan(
        trt,
        BuildRequest(
            onnx=onnx,
            content=bundle.graph(graph),
            input_name=graph.inputs[0].name,
            sample_shape=tuple(int(size) for size in graph.inputs[0].shape[1:]),
            profiles=profiles_of(graph, options.profiles) if graph.batch is None else (),
            settings=options.settings,
            timing_cache=read_cache(options.timing_cache),
        ),
        progress,
        lambda severity, text: warnings.append(f"{stem}: [{severity}] {text}"),
    )
    if (problem := write_cache(options.timing_cache, built.timing_cache)) is not None:
        warnings.append(problem)
    path, log = staged / f"{stem}.engine", staged / f"{stem}.log"
    path.write_bytes(built.plan)
    log.write_text(_log_text(built, onnx), encoding="utf-8")
    record = record_file(path, graph.file.sha256)
    metadata = _metadata(bundle, graph, trt, driver, options, built)
    inside = _looked_into(trt, built.plan, stem, options.settings) if driver.gpus else None
    layers: FileRecord | None = None
    if inside is not None:
        count, account = inside
        metadata = dataclasses.replace(metadata, engine_layers=count)
        layers_file = staged / f"{stem}.layers.json"
        layers_file.write_text(account, encoding="utf-8")
        layers = record_file(layers_file, record.sha256)
    artifact = EngineArtifact(
        file=record,
        precision=graph.precision,
        inputs=graph.inputs,
        outputs=graph.outputs,
        metadata=metadata,
        log=record_file(log, record.sha256),
        layers=layers,
    )
    return artifact, warnings


def trtexec_lines(directory: Path | str, options: BuildOptions) -> tuple[str, ...]:
    """``build --print-trtexec``: the equivalent command lines of 10.x and 11.x; nothing is built.

    Args:
        directory: The bundle.
        options: What would be built, and how; TensorRT's options.

    Raises:
        BundleError: It is not a bundle.
        OptionError: An option cannot be honoured.
    """
    bundle = Bundle.open(directory)
    if options.backend is TensorRTFlavor.TENSORRT_RTX:
        raise OptionError(
            "--print-trtexec prints lines for the trtexec of TensorRT, not for TensorRT-RTX.",
            remedy="Leave --backend out.",
        )
    refuse_unfit(options, TensorRTFlavor.TENSORRT)
    lines: list[str] = []
    graphs = graphs_of(bundle, options)
    refuse_precisions(graphs, options.settings)
    for graph in graphs:
        profiles = profiles_of(graph, options.profiles)
        lines += command_lines(graph, bundle.directory, profiles, options.settings, options.timing_cache)
    return tuple(lines)


def build_engines(directory: Path | str, options: BuildOptions, progress: Progress = silent) -> BuildReport:
    """``build``: engines of a bundle's graphs, put into it when all of them are built.

    Args:
        directory: The bundle.
        options: What to build, and how.
        progress: Called with the builder's steps.

    Raises:
        BundleError: It is not a bundle, or a file was changed.
        OptionError: An option cannot be honoured.
        MissingDependencyError: The backend is not installed.
        RuntimeFailureError: There is no GPU, and the backend or an option needs one.
        EngineBuildError: A graph cannot be parsed or built.
    """
    bundle = Bundle.open(directory)
    driver = query_driver()
    backend = choose_backend(options.backend, driver)
    refuse_unfit(options, backend)
    require_gpu_at_hand(options, driver)
    graphs = graphs_of(bundle, options)
    here = driver.gpus[0].compute_capability if backend is TensorRTFlavor.TENSORRT else None
    refuse_precisions(graphs, options.settings, here)
    for graph in graphs:
        profiles_of(graph, options.profiles)
    trt = load(backend)
    unfit = unsupported_gpu(backend, trt.version, driver)
    with staging(bundle.directory) as staged:
        built = [_stage(staged, bundle, graph, trt, options, progress) for graph in graphs]
        engines = tuple(artifact for artifact, _ in built)
        dropped: tuple[str, ...] = ()

        def add(current: Manifest) -> Manifest:
            nonlocal dropped
            if current.onnx != bundle.manifest.onnx:
                raise BundleChangedError(
                    f"The bundle {bundle.directory} was exported anew while its engines were built.",
                    remedy="Run the command again.",
                )
            changed = dataclasses.replace(current, engines=_merged(current.engines, engines))
            if _plans(current) <= _plans(changed):
                return changed
            results, dropped = kept_results(
                Bundle(bundle.directory, current),
                {record.sha256 for record in changed.files},
                current.reference.file.sha256,
                staged,
                parity_stays=True,
            )
            return dataclasses.replace(changed, results=results)

        update(bundle.directory, staged, add)
    return BuildReport(
        bundle=str(bundle.directory),
        engines=engines,
        warnings=(
            *([unfit] if unfit else []),
            *(text for _, warnings in built for text in warnings),
        ),
        dropped=dropped,
    )


def _plans(manifest: Manifest) -> set[str]:
    """sha256 of every engine."""
    return {engine.file.sha256 for engine in manifest.engines}


def _merged(
    before: tuple[EngineArtifact, ...], new: tuple[EngineArtifact, ...]
) -> tuple[EngineArtifact, ...]:
    """The engines of a bundle with the new ones in place of their namesakes."""
    names = {artifact.file.path for artifact in new}
    order = list(Precision)
    kept = [artifact for artifact in before if artifact.file.path not in names]
    return tuple(sorted((*kept, *new), key=lambda e: (order.index(e.precision), e.metadata.backend)))
