"""Candidates that PyTorch runs; PyTorch itself is imported when one of them is opened, and only then.

This is the one module of ``backends`` that imports inside functions: what runs a bundle's graphs and engines
must run where PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import assert_never

from riformer_deploy.backends.base import Candidate, CandidateSet, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.bundle.artifacts import OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version, require
from riformer_deploy.common.enums import Baselines, CompileMode, Precision, Processor, Role, RuntimeKind
from riformer_deploy.model.architecture import Form


def _without_pytorch() -> str | None:
    """Why PyTorch cannot run anything here, or None where it can."""
    if installed_version("torch") is not None:
        return None
    return f"PyTorch is not installed ({PACKAGES['torch'].install_command})"


def available(candidates: Sequence[Candidate]) -> CandidateSet:
    """Candidates of PyTorch as those that take part, or as skipped where it is not installed.

    Args:
        candidates: From this module.
    """
    if (reason := _without_pytorch()) is None:
        return CandidateSet(candidates=tuple(candidates))
    return CandidateSet(skipped=tuple(Skipped(config=item.config, reason=reason) for item in candidates))


def reference(bundle: Bundle) -> Candidate:
    """What everything is compared with: the bundle's reference weights, in float64.

    Args:
        bundle: Holds the weights.
    """
    weights = bundle.manifest.reference

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_reference

        return open_reference(bundle, weights)

    return Candidate(
        config=CandidateConfig(
            runtime=RuntimeKind.PYTORCH,
            precision=Precision.FP32,
            form=weights.form,
            label=f"PyTorch float64, {weights.form} form",
        ),
        artifact_sha256=weights.file.sha256,
        open=start,
    )


def weights_candidate(
    bundle: Bundle, weights: WeightsArtifact, form: Form, *, compiled: bool, threads: int | None
) -> Candidate:
    """Weights in float32 on the CPU.

    Args:
        bundle: Holds the weights.
        weights: One of its files.
        form: Their own form, or folded.
        compiled: Run them through ``torch.compile``.
        threads: CPU threads; None leaves the choice to PyTorch.
    """

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_weights

        return open_weights(bundle, weights, form, compiled=compiled, threads=threads)

    return Candidate(
        config=CandidateConfig(
            runtime=RuntimeKind.PYTORCH, precision=Precision.FP32, form=form, compiled=compiled
        ),
        artifact_sha256=weights.file.sha256,
        open=start,
        role=Role.BASELINE,
        file=weights.file.path,
    )


def lowered_candidate(bundle: Bundle, artifact: OnnxArtifact) -> Candidate:
    """The module that a graph was exported from.

    Args:
        bundle: Holds the graph.
        artifact: The graph.
    """

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_lowered

        return open_lowered(bundle, artifact)

    return Candidate(
        config=CandidateConfig(runtime=RuntimeKind.PYTORCH, precision=artifact.precision),
        artifact_sha256=bundle.manifest.reference.file.sha256,
        open=start,
        file=artifact.file.path,
    )


def _way(
    precision: Precision,
    *,
    mode: CompileMode | None = None,
    channels_last: bool = False,
    conv_1x1_as_mm: bool = False,
) -> CandidateConfig:
    """One way of running the weights with PyTorch on a GPU; ``mode`` None is eager."""
    compiled = mode is not None
    return CandidateConfig(
        runtime=RuntimeKind.PYTORCH,
        precision=precision,
        processor=Processor.GPU,
        form=Form.FOLDED if compiled else Form.DEPLOY,
        compiled=compiled,
        mode=mode,
        channels_last=channels_last,
        conv_1x1_as_mm=conv_1x1_as_mm,
    )


_FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
_QUICK = (
    _way(Precision.FP32),
    _way(Precision.FP32, mode=CompileMode.REDUCE_OVERHEAD, channels_last=True, conv_1x1_as_mm=True),
    _way(Precision.FP16, channels_last=True),
    _way(Precision.FP16, mode=CompileMode.REDUCE_OVERHEAD, channels_last=True, conv_1x1_as_mm=True),
    _way(Precision.BF16, mode=CompileMode.REDUCE_OVERHEAD, channels_last=True, conv_1x1_as_mm=True),
)
_STRONG = (
    *_QUICK,
    _way(Precision.FP16, mode=CompileMode.MAX_AUTOTUNE, channels_last=True, conv_1x1_as_mm=True),
)
_ALL = (
    *(
        _way(precision, channels_last=channels_last)
        for precision, channels_last in product(_FLOATS, (False, True))
    ),
    *(
        _way(precision, channels_last=channels_last, mode=mode, conv_1x1_as_mm=conv_1x1_as_mm)
        for mode, precision, channels_last, conv_1x1_as_mm in product(
            CompileMode, _FLOATS, (False, True), (False, True)
        )
    ),
)


def _ways_of(baselines: Baselines) -> tuple[CandidateConfig, ...]:
    match baselines:
        case Baselines.NONE:
            return ()
        case Baselines.QUICK:
            return _QUICK
        case Baselines.STRONG:
            return _STRONG
        case Baselines.ALL:
            return _ALL
        case _:
            assert_never(baselines)


def _baseline_candidate(bundle: Bundle, weights: WeightsArtifact, way: CandidateConfig) -> Candidate:
    """Eager in deploy form, as mmpretrain runs it; compiled in the folded form, which gains most by it."""

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_on_gpu

        return open_on_gpu(bundle, weights, way)

    return Candidate(config=way, artifact_sha256=weights.file.sha256, open=start, role=Role.BASELINE)


def pytorch_baselines(bundle: Bundle, baselines: Baselines) -> CandidateSet:
    """Ways of running the weights with PyTorch on a GPU, which this machine has.

    Args:
        bundle: Holds the weights.
        baselines: Which ways.
    """
    deploy = next(item for item in bundle.manifest.weights if item.form is Form.DEPLOY)
    ways = available([_baseline_candidate(bundle, deploy, way) for way in _ways_of(baselines)])
    if not ways.candidates:
        return ways
    from riformer_deploy.backends.pytorch_opening import gpu_problem

    if (reason := gpu_problem()) is None:
        return ways
    return CandidateSet(skipped=tuple(Skipped(config=way.config, reason=reason) for way in ways.candidates))
