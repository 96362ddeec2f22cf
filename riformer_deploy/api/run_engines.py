"""The engines of a run: built one by one, so that what was built stays where the next one fails."""

from __future__ import annotations

import time

from riformer_deploy.api.build import BuildOptions, build_engines
from riformer_deploy.api.run_context import RunContext, intact
from riformer_deploy.api.run_records import RunStep, StepOutcome
from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.engine_metadata import (
    BuildSettings,
    EngineArtifact,
    TensorRTFlavor,
    has_precision,
)
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version, require_installed
from riformer_deploy.common.enums import Precision, Target
from riformer_deploy.common.errors import (
    EngineBuildError,
    MissingDependencyError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.trt.build_options import choose_backend, unsupported_gpu


def builder_of(context: RunContext) -> tuple[TensorRTFlavor | None, str]:
    """What builds engines here, and, where nothing does, why."""
    if context.options.target is Target.CPU:
        return None, "engines are for GPUs, and the target is cpu"
    try:
        flavor = choose_backend(None, context.driver)
        require_installed(flavor.module)
    except MissingDependencyError as err:
        return None, f"{err.message} {err.remedy}"
    return flavor, ""


def make_engines(context: RunContext, flavor: TensorRTFlavor) -> tuple[RunStep, ...]:
    """Build an engine of every graph that has none, each put into the bundle at once.

    Args:
        context: The run.
        flavor: What builds them.

    Raises:
        BundleError: A file was changed, or the bundle cannot be written.
    """
    graphs = Bundle.open(context.directory).manifest.onnx
    return tuple(_make(context, flavor, graph) for graph in graphs)


def _make(context: RunContext, flavor: TensorRTFlavor, graph: OnnxArtifact) -> RunStep:
    name = f"build {graph.precision}"
    bundle = Bundle.open(context.directory)
    held = next(
        (
            engine
            for engine in bundle.manifest.engines
            if (engine.precision, engine.metadata.backend) == (graph.precision, flavor)
        ),
        None,
    )
    if not _gpu_has(context, graph.precision):
        gpu = context.driver.gpus[0].name
        return RunStep(name=name, outcome=StepOutcome.SKIPPED, text=f"{gpu} does not compute in it")
    if held is not None and intact(bundle, held.file):
        if _elsewhere(context, held):
            text = (
                f"{held.file.path} was built on {held.metadata.gpu} and is not replaced; to build it for "
                f"this GPU: riformer-deploy build {context.directory} --precision {graph.precision}"
            )
            return RunStep(name=name, outcome=StepOutcome.SKIPPED, text=text)
        if held.metadata.backend_version == installed_version(flavor.module):
            text = f"{held.file.path}, of the same graph and version"
            return RunStep(name=name, outcome=StepOutcome.REUSED, text=text)
    options = BuildOptions(
        precisions=(graph.precision,),
        backend=flavor,
        profiles=() if held is None or graph.batch is not None else held.metadata.profiles,
        settings=BuildSettings() if held is None else held.metadata.settings,
    )
    start = time.monotonic()
    try:
        report = build_engines(context.directory, options, context.progress)
    except (EngineBuildError, MissingDependencyError, OptionError, RuntimeFailureError) as err:
        outcome, text = StepOutcome.FAILED, err.message
    else:
        outcome = StepOutcome.DONE
        text = ", ".join(f"{e.file.path}, for compute capability {e.targets}" for e in report.engines)
        version = report.engines[0].metadata.backend_version
        if (unfit := unsupported_gpu(flavor, version, context.driver)) is not None:
            text += f". {unfit}"
        if report.dropped:
            text += f". Dropped: {'; '.join(report.dropped)}"
    return RunStep(name=name, outcome=outcome, text=text, seconds=time.monotonic() - start)


def _gpu_has(context: RunContext, precision: Precision) -> bool:
    return not context.has_gpu or has_precision(context.driver.gpus[0].compute_capability, precision)


def _elsewhere(context: RunContext, engine: EngineArtifact) -> bool:
    """Whether an engine of TensorRT is another GPU's, for which only that one can build it again."""
    if engine.metadata.backend is TensorRTFlavor.TENSORRT_RTX or not context.has_gpu:
        return False
    return engine.metadata.gpu_compute_capability != context.driver.gpus[0].compute_capability
