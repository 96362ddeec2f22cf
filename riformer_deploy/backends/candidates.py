"""The models of a bundle that can be compared and timed: its artifacts, each behind a runtime.

Every candidate is loaded from the bundle's own file when its turn comes, so what is measured is what
is shipped, and one model is in memory at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

from riformer_deploy.backends.base import BatchRange, Candidate, CandidateSet, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.gpu_options import GpuOptions
from riformer_deploy.backends.input_adapter import adapt_input
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.backends.pytorch_candidates import (
    available,
    lowered_candidate,
    weights_candidate,
)
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.bundle.artifacts import OnnxArtifact
from riformer_deploy.bundle.manifest import architecture_problem
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import PACKAGES, installed_version, require
from riformer_deploy.common.enums import (
    Group,
    Precision,
    Role,
    RuntimeKind,
)
from riformer_deploy.common.errors import BundleError, BundleIntegrityError
from riformer_deploy.model.architecture import Form

_LOG = logging.getLogger(__name__)


def _graph(
    bundle: Bundle,
    artifact: OnnxArtifact,
    runtime: RuntimeKind,
    load: Callable[[Path, Callable[[], bytes]], Runtime],
) -> Candidate:
    def start() -> Runtime:
        runtime = load(bundle.place_of(artifact.file), lambda: bundle.graph(artifact))
        return adapt_input(runtime, bundle, artifact.lowering)

    return Candidate(
        config=CandidateConfig(runtime=runtime, precision=artifact.precision),
        artifact_sha256=artifact.file.sha256,
        batches=BatchRange.of(artifact.batch),
        open=start,
        file=artifact.file.path,
    )


def _torch_candidates(bundle: Bundle, threads: int | None, *, folded: bool) -> CandidateSet:
    weights = bundle.manifest.weights
    found = [weights_candidate(bundle, item, item.form, compiled=False, threads=threads) for item in weights]
    if folded:
        reference = bundle.manifest.reference
        found.append(weights_candidate(bundle, reference, Form.FOLDED, compiled=False, threads=threads))
    return available(found)


def _compiled_candidates(bundle: Bundle, threads: int | None) -> CandidateSet:
    reference = bundle.manifest.reference
    return available([weights_candidate(bundle, reference, Form.FOLDED, compiled=True, threads=threads)])


def _bf16_candidates(bundle: Bundle, artifact: OnnxArtifact, *, modules: bool) -> CandidateSet:
    """In place of a bfloat16 graph, which ONNX Runtime cannot run on the CPU, the module behind it."""
    module = available([lowered_candidate(bundle, artifact)] if modules else [])
    reason = "ONNX Runtime has no CPU kernels for bfloat16"
    if module.candidates:
        reason += "; the module it was exported from took part"
    config = CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=artifact.precision)
    return module + CandidateSet(skipped=(Skipped(config=config, reason=reason),))


def _onnx_candidates(
    bundle: Bundle, threads: int | None, *, keep_memory: bool, modules: bool
) -> CandidateSet:
    def load(path: Path, read: Callable[[], bytes]) -> Runtime:
        return OnnxRuntime(path, read=read, threads=threads, keep_memory=keep_memory)

    selected = CandidateSet()
    for artifact in bundle.manifest.onnx:
        if artifact.precision is Precision.BF16:
            selected += _bf16_candidates(bundle, artifact, modules=modules)
        else:
            kind = RuntimeKind.ONNX_RUNTIME
            run = _graph(bundle, artifact, kind, load)
            selected += CandidateSet(candidates=(run,))
    return selected


def _openvino_candidates(bundle: Bundle, threads: int | None) -> CandidateSet:
    def load(path: Path, read: Callable[[], bytes]) -> Runtime:
        return OpenVinoRuntime(path, read=read, threads=threads)

    selected = CandidateSet()
    absent = installed_version("openvino") is None
    for artifact in bundle.manifest.onnx:
        config = CandidateConfig(runtime=RuntimeKind.OPENVINO, precision=artifact.precision)
        if absent:
            unrun = "; the file itself has not been run" if artifact.precision is Precision.BF16 else ""
            reason = f"OpenVINO is not installed ({PACKAGES['openvino'].install_command}){unrun}"
            selected += CandidateSet(skipped=(Skipped(config=config, reason=reason),))
        elif artifact.precision is Precision.INT8 and artifact.lowering.base is Precision.FP16:
            # OpenVINO 2026.4 compiles int8 convolutions among half-precision ones, but does not run them.
            reason = "OpenVINO cannot run int8 convolutions whose base is fp16; fp32 as the base runs"
            selected += CandidateSet(skipped=(Skipped(config=config, reason=reason),))
        else:
            kind = RuntimeKind.OPENVINO
            run = _graph(bundle, artifact, kind, load)
            selected += CandidateSet(candidates=(run,))
    return selected


def _on_gpu(bundle: Bundle, group: Group, options: GpuOptions) -> CandidateSet:
    # What touches TensorRT and CUDA is imported when it is asked for: it takes a tenth of a second.
    from riformer_deploy.backends.gpu_candidates import baseline_candidates, engine_candidates

    return (engine_candidates if group is Group.ENGINE else baseline_candidates)(bundle, options)


def select_candidates(
    bundle: Bundle,
    groups: Sequence[Group],
    *,
    threads: int | None = None,
    folded: bool = True,
    keep_memory: bool = True,
    modules: bool = True,
    gpu: GpuOptions | None = None,
    precisions: Sequence[Precision] = (),
) -> CandidateSet:
    """The bundle's models of the groups asked for, and those of them that this machine cannot run.

    Args:
        bundle: Holds the artifacts.
        groups: Which kinds; ``TORCH`` gives every stored form and the folded one, eager.
        folded: Whether ``TORCH`` includes the folded form, which no file of the bundle holds for PyTorch.
        keep_memory: Whether ONNX Runtime keeps memory between runs, which takes more of it.
        modules: Whether ``ONNX``, which has no kernels for bfloat16, runs the PyTorch module behind such a
            graph in its place: its outputs tell of the graph, its latency does not.
        threads: CPU threads of each; None leaves the choice to the backend.
        gpu: How engines are run; None means the defaults.
        precisions: Of graphs and engines; none for every one. What they are compared with stays: the
            weights in PyTorch, and the baselines on a GPU.

    Raises:
        BundleError: The bundle holds no engine where ``gpu`` requires one, or no model in a precision.
        BundleIntegrityError: The weights cannot be of the architecture that the manifest states.
    """
    if (wrong := architecture_problem(bundle.manifest)) is not None:  # before anything of that size is built
        raise BundleIntegrityError(wrong, remedy="Restore the bundle, or export the checkpoint again.")
    require_precisions(bundle, precisions)
    selected = CandidateSet()
    for group in dict.fromkeys(groups):
        match group:
            case Group.TORCH:
                selected += _torch_candidates(bundle, threads, folded=folded)
            case Group.COMPILED:
                selected += _compiled_candidates(bundle, threads)
            case Group.ONNX:
                selected += _onnx_candidates(bundle, threads, keep_memory=keep_memory, modules=modules)
            case Group.OPENVINO:
                selected += _openvino_candidates(bundle, threads)
            case Group.ENGINE | Group.GPU:
                selected += _on_gpu(bundle, group, gpu or GpuOptions())
            case _:
                assert_never(group)
    return _of_precisions(selected, precisions) if precisions else selected


def require_precisions(bundle: Bundle, precisions: Sequence[Precision]) -> None:
    """See that a bundle holds a model in each precision.

    Raises:
        BundleError: It holds none in one of them.
    """
    held = list(dict.fromkeys(artifact.precision for artifact in bundle.manifest.onnx))
    if missing := [item for item in dict.fromkeys(precisions) if item not in held]:
        raise BundleError(
            f"{bundle.directory} holds no model in {', '.join(missing)}; it holds {', '.join(held)}.",
            remedy="Name one that it holds, or export the checkpoint again with that --precision.",
        )


def _of_precisions(selected: CandidateSet, precisions: Sequence[Precision]) -> CandidateSet:
    return CandidateSet(
        candidates=tuple(
            c
            for c in selected.candidates
            if c.precision in precisions or c.config.form is not None or c.role is Role.BASELINE
        ),
        skipped=tuple(s for s in selected.skipped if s.config.precision in precisions),
    )


def require_backends(groups: Sequence[Group]) -> None:
    """See that what runs the groups asked for by name is installed.

    Args:
        groups: Which kinds.

    Raises:
        MissingDependencyError: It is not.
    """
    if Group.TORCH in groups or Group.COMPILED in groups:
        require("torch")
    if Group.ONNX in groups:
        require("onnxruntime")
    if Group.OPENVINO in groups:
        require("openvino")
