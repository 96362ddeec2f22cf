"""ONNX to a plan: parse, configure, build. Strongly typed on every version: precision is the graph's."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from riformer_deploy.bundle.engine_metadata import CURRENT, BatchProfile, BuildSettings
from riformer_deploy.bundle.graph_reader import read_model
from riformer_deploy.common.enums import HardwareCompatibility
from riformer_deploy.common.errors import EngineBuildError, OptionError, RuntimeFailureError
from riformer_deploy.common.progress import Progress, Step
from riformer_deploy.trt.bindings import Log, OnMessage, TensorRT, started
from riformer_deploy.trt.interruption import interruptible

if TYPE_CHECKING:
    from tensorrt_api import (
        Builder,
        ComputeCapability,
        IBuilderConfig,
        INetworkDefinition,
        IProgressMonitor,
        Module,
        OnnxParser,
    )


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build.

    Attributes:
        onnx: The graph's file.
        input_name: Name of its input.
        sample_shape: Shape of one sample of the input: its shape without the batch.
        profiles: Batch sizes of each optimisation profile; none for a graph of fixed batch.
        settings: How.
        timing_cache: Kernel timings of earlier builds, or None to start without; TensorRT only.
        content: The file's, where it was read and checked: TensorRT opens no file itself. None reads it.
    """

    onnx: Path
    input_name: str
    sample_shape: tuple[int, ...]
    profiles: tuple[BatchProfile, ...]
    settings: BuildSettings
    timing_cache: bytes | None = None
    content: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """What the builder made.

    Attributes:
        plan: The plan, which ``trtexec --loadEngine`` accepts as it is.
        build_ms: Duration of the builder's call.
        network_layers: Layers of the parsed network by the type of their first output.
        log: What parser and builder said.
        timing_cache: Kernel timings for later builds, or None where the flavor has none.
    """

    plan: bytes
    build_ms: float
    network_layers: Mapping[str, int]
    log: Sequence[tuple[str, str]]
    timing_cache: bytes | None


def compute_capabilities(trt: TensorRT) -> dict[str, ComputeCapability]:
    """What can be built for, by name: ``8.9``, without that GPU, or ``current``, for the GPU at hand.

    Nothing where the flavor builds for the GPU at hand only.
    """
    if not trt.has_compute_capabilities:
        return {}
    members = trt.module.ComputeCapability.__members__
    named = {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}
    return {**named, CURRENT: trt.module.ComputeCapability.CURRENT}


class _Monitor:
    """Hands the builder's steps on, and stops it once asked to.

    What the watcher raises stops it too, and is kept: the builder would swallow it and speak of a user
    who cancelled.
    """

    def __init__(self, module: Module, progress: Progress, what: str) -> None:
        self.cancelled = threading.Event()
        self.failure: BaseException | None = None
        self._progress, self._what = progress, what
        self._phases: dict[str, int] = {}
        self.monitor = _progress_monitor(module, self)

    def start(self, phase: str, steps: int) -> None:
        self._phases[phase] = steps

    def step(self, phase: str, number: int) -> bool:
        steps = self._phases.get(phase, number + 1)
        try:
            self._progress(Step(f"building {self._what}", f"step {number + 1} of {steps}: {phase}"))
        except BaseException as err:  # noqa: BLE001  # raised again when the builder has stopped
            self.failure = self.failure or err
            self.cancelled.set()
        return not self.cancelled.is_set()

    def finish(self, phase: str) -> None:
        self._phases.pop(phase, None)


def _progress_monitor(module: Module, target: _Monitor) -> IProgressMonitor:
    if not TYPE_CHECKING:
        IProgressMonitor = module.IProgressMonitor  # noqa: N806  # as the logger's base

    class Monitor(IProgressMonitor):  # type: ignore[misc]  # as the logger's
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            target.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return target.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            target.finish(phase_name)

    return Monitor()


def _parse(trt: TensorRT, network: INetworkDefinition, log: Log, request: BuildRequest) -> OnnxParser:
    """The parser, which owns what it parsed."""
    parser = trt.module.OnnxParser(network, log.logger)
    if parser.parse(read_model(request.onnx) if request.content is None else request.content):
        return parser
    findings = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"node {error.node()}"
        if error.node_name() or error.node_operator():
            where += f" ({error.node_name()}, operator {error.node_operator()})"
        findings.append(f"{where}: {error.desc()}")
    raise EngineBuildError(
        f"{trt.backend.label} {trt.version} cannot parse {request.onnx}.",
        details=findings or log.errors,
        remedy="Export the checkpoint with another --norm-form or --opset, or a newer TensorRT.",
    )


def _network_layers(network: INetworkDefinition) -> dict[str, int]:
    found: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.get_output(0).dtype.name if layer.num_outputs else "none"
        found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items()))


def _target(trt: TensorRT, config: IBuilderConfig, wanted: Sequence[str]) -> None:
    """Say which GPUs to build for."""
    if not wanted:
        return
    if not trt.has_compute_capabilities:
        raise OptionError(
            f"{trt.backend.label} {trt.version} builds for the GPU that it runs on only; "
            f"not for {', '.join(wanted)}.",
            remedy="Leave --compute-capability out, or build with --backend tensorrt-rtx.",
        )
    known = compute_capabilities(trt)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise OptionError(
            f"{trt.backend.label} {trt.version} can be built for {', '.join(known)}; "
            f"not for {', '.join(unknown)}.",
            remedy="Leave --compute-capability out, or name some of these; for another GPU, build there "
            "with --backend tensorrt.",
        )
    config.num_compute_capabilities = len(wanted)
    for index, name in enumerate(wanted):
        if not config.set_compute_capability(known[name], index):
            raise EngineBuildError(f"{trt.backend.label} {trt.version} does not build for {name} here.")


def _configure(trt: TensorRT, builder: Builder, request: BuildRequest, monitor: _Monitor) -> IBuilderConfig:
    module, settings = trt.module, request.settings
    config = builder.create_builder_config()
    config.progress_monitor = monitor.monitor
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # names in the inspector; costs no speed
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    flags = module.BuilderFlag
    for flag, wanted in (
        (flags.TF32, settings.tf32),
        (flags.REFIT, settings.refittable),
        (flags.VERSION_COMPATIBLE, settings.version_compatible),
    ):
        (config.set_flag if wanted else config.clear_flag)(flag)
    levels = module.HardwareCompatibilityLevel
    match settings.hardware_compatibility:
        case HardwareCompatibility.NONE:
            pass
        case HardwareCompatibility.AMPERE_PLUS:
            config.hardware_compatibility_level = levels.AMPERE_PLUS
        case HardwareCompatibility.SAME_COMPUTE_CAPABILITY:
            config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY
        case _:
            assert_never(settings.hardware_compatibility)
    _target(trt, config, settings.compute_capabilities)
    for profile in request.profiles:
        ranges = builder.create_optimization_profile()
        sizes = (profile.minimum, profile.optimum, profile.maximum)
        ranges.set_shape(request.input_name, *((size, *request.sample_shape) for size in sizes))
        if config.add_optimization_profile(ranges) < 0:
            raise EngineBuildError(
                f"{trt.backend.label} {trt.version} does not accept the profile {profile} of {request.onnx}."
            )
    return config


def build_plan(trt: TensorRT, request: BuildRequest, progress: Progress, on_message: OnMessage) -> BuiltPlan:
    """Parse a graph and build a plan; Ctrl-C cancels the builder and is raised when it has stopped.

    Args:
        trt: The bindings.
        request: What to build.
        progress: Called with the builder's steps.
        on_message: Called with severity and text of its warnings and errors as they come.

    Raises:
        EngineBuildError: The parser or the builder refuses; its own words are among the details.
        OptionError: A compute capability cannot be built for.
        RuntimeFailureError: The builder does not start: TensorRT's own needs a GPU and its driver.
    """
    module = trt.module
    log = Log(trt, on_message)
    builder = started(module.Builder, log)
    if builder is None:
        raise RuntimeFailureError(
            f"{trt.backend.label} {trt.version} cannot start a builder.",
            details=log.errors,
            remedy="It needs a GPU and its driver: `riformer-deploy doctor` says what is there.",
        )
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = _parse(trt, network, log, request)
    monitor = _Monitor(module, progress, request.onnx.name)
    config = _configure(trt, builder, request, monitor)
    cache = None
    if request.timing_cache is not None:
        cache = config.create_timing_cache(request.timing_cache)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise EngineBuildError(
                f"The timing cache is not of {trt.backend.label} {trt.version} on this GPU.",
                details=log.errors,
                remedy="Name another file with --timing-cache; it is created.",
            )
    start = time.perf_counter()
    plan = interruptible(
        lambda: builder.build_serialized_network(network, config), cancel=monitor.cancelled.set
    )
    build_ms = 1000 * (time.perf_counter() - start)
    if monitor.failure is not None:
        raise monitor.failure
    if plan is None:
        raise EngineBuildError(
            f"{trt.backend.label} {trt.version} could not build an engine of {request.onnx}.",
            details=log.errors,
            remedy=_remedy(request.settings, log.errors),
        )
    layers = _network_layers(network)
    del parser
    return BuiltPlan(
        plan=bytes(plan),
        build_ms=build_ms,
        network_layers=layers,
        log=tuple(log.lines),
        timing_cache=None if cache is None else bytes(cache.serialize()),
    )


def _remedy(settings: BuildSettings, errors: Sequence[str]) -> str:
    """What usually helps, by what the builder complains of."""
    text = " ".join(errors)
    if "nvinfer_lean" in text:
        return "A version-compatible engine needs the lean runtime's library, which this installation lacks."
    if "Turing" in text:
        return "Leave 7.5 out of --compute-capability: this graph has operators that its builder lacks there."
    if "HW-specific datatypes: fp8" in text:
        return "fp8 needs compute capability 8.9 or later: build another precision for these GPUs."
    if "workspace limit" in text:
        return "Give it more scratch memory with --workspace, or leave that option out."
    if settings.refittable and "CUDA_SUCCESS" in text:
        return "A refittable engine needs a GPU to be built."
    return "A smaller --workspace or a lower --opt-level may help; --debug shows where it failed."
