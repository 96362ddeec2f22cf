"""Candidates that PyTorch runs; PyTorch itself is imported when one of them is opened, and only then.

This is the one module of ``backends`` that imports inside functions: what runs a bundle's graphs and engines
must run where PyTorch is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import assert_never

from riformer_deploy.backends.base import Candidate, CandidateSet, Runtime, Skipped
from riformer_deploy.bundle.artifacts import OnnxArtifact, WeightsArtifact
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version, require
from riformer_deploy.common.enums import Baselines, CompileMode, Precision, Role
from riformer_deploy.model.architecture import Form


def without_pytorch(name: str) -> Skipped | None:
    """Why a candidate of PyTorch cannot take part; None where PyTorch is installed.

    Args:
        name: What tables call the candidate.
    """
    if installed_version("torch") is not None:
        return None
    return Skipped(name=name, reason=f"PyTorch is not installed ({PACKAGES['torch'].install_command})")


def reference(bundle: Bundle) -> Candidate:
    """What everything is compared with: the bundle's first weights, in float64.

    Args:
        bundle: Its first weights are the training form, or the deploy form where the checkpoint
            held no other.
    """
    weights = bundle.manifest.weights[0]

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_reference

        return open_reference(bundle, weights)

    return Candidate(
        name=f"PyTorch float64, {weights.form} form",
        precision=Precision.FP32,
        artifact_sha256=weights.file.sha256,
        open=start,
    )


def weights_candidate(
    bundle: Bundle, weights: WeightsArtifact, form: Form, *, compiled: bool, threads: int | None
) -> Candidate:
    """Weights in float32 on the CPU.

    Args:
        bundle: Whose.
        weights: Which.
        form: Their own form, or folded.
        compiled: Run them through ``torch.compile``.
        threads: CPU threads; None leaves the choice to PyTorch.
    """

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_weights

        return open_weights(bundle, weights, form, compiled=compiled, threads=threads)

    return Candidate(
        name=f"PyTorch float32, {form} form" + (", torch.compile" if compiled else ""),
        precision=Precision.FP32,
        artifact_sha256=weights.file.sha256,
        open=start,
        role=Role.BASELINE,
        file=weights.file.path,
    )


def lowered_candidate(bundle: Bundle, artifact: OnnxArtifact) -> Candidate:
    """The module that a floating-point graph was exported from.

    Args:
        bundle: Whose.
        artifact: The graph.
    """

    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_lowered

        return open_lowered(bundle, artifact)

    return Candidate(
        name=f"PyTorch {artifact.precision}, lowered",
        precision=artifact.precision,
        artifact_sha256=bundle.manifest.weights[0].file.sha256,
        open=start,
        file=artifact.file.path,
    )


_DTYPE_NAMES = {Precision.FP32: "float32", Precision.FP16: "float16", Precision.BF16: "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class _TorchBaseline:
    """One way of running the weights with PyTorch on a GPU; ``mode`` None is eager."""

    precision: Precision
    channels_last: bool = False
    mode: CompileMode | None = None
    conv_1x1_as_mm: bool = False

    @property
    def name(self) -> str:
        parts = [f"PyTorch {_DTYPE_NAMES[self.precision]}, GPU"]
        parts += ["channels last"] if self.channels_last else []
        parts += ["eager"] if self.mode is None else [f"torch.compile {self.mode} with CUDA graphs"]
        parts += ["1x1 convolutions as matrix products"] if self.conv_1x1_as_mm else []
        return ", ".join(parts)


_FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
_COMPILED = {"channels_last": True, "conv_1x1_as_mm": True}
_QUICK = (
    _TorchBaseline(precision=Precision.FP32),
    _TorchBaseline(precision=Precision.FP32, mode=CompileMode.REDUCE_OVERHEAD, **_COMPILED),
    _TorchBaseline(precision=Precision.FP16, channels_last=True),
    _TorchBaseline(precision=Precision.FP16, mode=CompileMode.REDUCE_OVERHEAD, **_COMPILED),
    _TorchBaseline(precision=Precision.BF16, mode=CompileMode.REDUCE_OVERHEAD, **_COMPILED),
)
_STRONG = (
    *_QUICK,
    _TorchBaseline(precision=Precision.FP16, mode=CompileMode.MAX_AUTOTUNE, **_COMPILED),
)
_ALL = (
    *(
        _TorchBaseline(precision=precision, channels_last=channels_last)
        for precision, channels_last in product(_FLOATS, (False, True))
    ),
    *(
        _TorchBaseline(
            precision=precision, channels_last=channels_last, mode=mode, conv_1x1_as_mm=conv_1x1_as_mm
        )
        for mode, precision, channels_last, conv_1x1_as_mm in product(
            CompileMode, _FLOATS, (False, True), (False, True)
        )
    ),
)


def _baselines_of(baselines: Baselines) -> tuple[_TorchBaseline, ...]:
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


def _baseline_candidate(bundle: Bundle, weights: WeightsArtifact, baseline: _TorchBaseline) -> Candidate:
    def start() -> Runtime:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import open_on_gpu

        return open_on_gpu(
            bundle,
            weights,
            baseline.precision,
            mode=baseline.mode,
            channels_last=baseline.channels_last,
            conv_1x1_as_mm=baseline.conv_1x1_as_mm,
        )

    return Candidate(
        name=baseline.name,
        precision=baseline.precision,
        artifact_sha256=weights.file.sha256,
        open=start,
        role=Role.BASELINE,
    )


def pytorch_baselines(bundle: Bundle, baselines: Baselines) -> CandidateSet:
    """Ways of running the deploy form with PyTorch on a GPU, which this machine has.

    Args:
        bundle: Whose weights.
        baselines: Which ways.
    """
    skipped = without_pytorch("PyTorch, GPU")
    if skipped is None:
        require("torch")
        from riformer_deploy.backends.pytorch_opening import gpu_problem

        problem = gpu_problem()
        skipped = None if problem is None else Skipped(name="PyTorch, GPU", reason=problem)
    if skipped is not None:
        return CandidateSet(skipped=(skipped,))
    deploy = next(item for item in bundle.manifest.weights if item.form is Form.DEPLOY)
    ways = _baselines_of(baselines)
    return CandidateSet(candidates=tuple(_baseline_candidate(bundle, deploy, way) for way in ways))
