"""The CPU: S12 in PyTorch, ONNX Runtime and OpenVINO, in every precision and norm form, at 224 px."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from _common import naive_export, random_state, target, write_result

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.common.enums import NormForm, Precision, RuntimeKind
from riformer_deploy.common.serialization import JsonValue, to_jsonable

# Internals: graphs are made in every form without a bundle around them.
from riformer_deploy.data.calibration import random_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.latency import BenchOptions, measure_latency
from riformer_deploy.evaluation.results import InputImages, LatencyResult
from riformer_deploy.export.config import BF16_OPSET, GROUP_NORM_OPSET, PrecisionOptions
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, OnnxOptions, export_onnx
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS
from riformer_deploy.quantization.calibration import Calibration, CalibrationConfig, measure
from riformer_deploy.quantization.planning import resolve_lowering

_SIZE = (224, 224)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
_BATCHES = (1, 8)
_EAGER = "PyTorch eager fp32, training form"
_NAIVE = "the naive export fp32"


def _opset(precision: Precision, norm: NormForm) -> int:
    """The default, or the first that can express it: what a user gets."""
    if precision is Precision.BF16:
        return BF16_OPSET
    return max(DEFAULT_OPSET, GROUP_NORM_OPSET) if norm is NormForm.GROUP else DEFAULT_OPSET


def _graphs(model: RIFormer, folder: Path) -> dict[str, tuple[Precision, Path]]:
    """Our files by name: every norm form of every precision."""
    folded = fold(model)
    calibration: Calibration = measure(folded, random_set(_PREPROCESSING), "benchmark", CalibrationConfig())
    files = {}
    for precision in Precision:
        for norm in NormForm:
            plan = resolve_lowering(precision, PrecisionOptions(norm=norm), calibration)
            path = folder / f"{precision}.{norm}.onnx"
            options = OnnxOptions(image_size_px=_SIZE, opset=_opset(precision, norm))
            export_onnx(lower(folded, plan, _PREPROCESSING), path, options, {})
            files[f"{precision} {norm}"] = (precision, path)
    return files


def _candidates(model: RIFormer, folder: Path, threads: int) -> list[Candidate]:
    folded, naive = fold(model), naive_export(model, folder / "naive.onnx", _SIZE[0])
    half = fold(model).to(torch.bfloat16)
    fp32, bf16 = Precision.FP32, Precision.BF16
    torch_, onnx_ = RuntimeKind.PYTORCH, RuntimeKind.ONNX_RUNTIME
    candidates = [
        _candidate(_EAGER, torch_, fp32, lambda: PyTorchRuntime(model, threads=threads)),
        _candidate(
            "PyTorch eager fp32, folded", torch_, fp32, lambda: PyTorchRuntime(folded, threads=threads)
        ),
        _candidate(
            "PyTorch compiled fp32, folded", torch_, fp32,
            lambda: PyTorchRuntime(folded, compiled=True, threads=threads),
        ),
        _candidate(
            "PyTorch eager bf16, folded", torch_, bf16,
            lambda: PyTorchRuntime(half, dtype=torch.bfloat16, threads=threads),
        ),
        _candidate(
            "PyTorch compiled bf16, folded", torch_, bf16,
            lambda: PyTorchRuntime(half, dtype=torch.bfloat16, compiled=True, threads=threads),
        ),
        _candidate(f"ONNX Runtime, {_NAIVE}", onnx_, fp32, lambda: OnnxRuntime(naive, threads=threads)),
        _candidate(
            f"OpenVINO, {_NAIVE}", RuntimeKind.OPENVINO, fp32, lambda: OpenVinoRuntime(naive, threads=threads)
        ),
    ]  # fmt: skip
    for name, (precision, path) in _graphs(model, folder).items():
        if precision is not Precision.BF16:  # ONNX Runtime has no CPU kernels for it
            start = _opener(OnnxRuntime, path, threads)
            candidates.append(_candidate(f"ONNX Runtime {name}", onnx_, precision, start))
        start = _opener(OpenVinoRuntime, path, threads)
        candidates.append(_candidate(f"OpenVINO {name}", RuntimeKind.OPENVINO, precision, start))
    return candidates


def _candidate(
    label: str, runtime: RuntimeKind, precision: Precision, start: Callable[[], Runtime]
) -> Candidate:
    config = CandidateConfig(runtime=runtime, precision=precision, label=label)
    return Candidate(config=config, artifact_sha256="", open=start)


def _opener(kind: Callable[..., Runtime], path: Path, threads: int) -> Callable[[], Runtime]:
    return lambda: kind(path, threads=threads)


def _targets(result: LatencyResult, names: list[str]) -> dict[str, JsonValue]:
    """Ratios of medians, each within one batch size."""
    median = {(sample.name, sample.batch): sample.summary.median_ms for sample in result.samples}
    found: dict[str, JsonValue] = {}
    for batch in _BATCHES:
        files = [name for name in names if (name, batch) in median and "PyTorch" not in name]
        ours = [name for name in files if _NAIVE not in name]
        best = min(ours, key=lambda name: median[name, batch])
        ratio = median[_EAGER, batch] / median[best, batch]
        found[f"batch {batch}: eager over the best artifact ({best})"] = target(ratio, 7.0, at_most=False)
        for backend in ("ONNX Runtime", "OpenVINO"):
            default = median[f"{backend} fp32 instance", batch]
            found[f"batch {batch}, {backend}: naive export over our default fp32"] = target(
                median[f"{backend}, {_NAIVE}", batch] / default, 1.0, at_most=False
            )
    return found


def main() -> None:
    """Interleaved rounds of all, raw samples kept."""
    architecture = VARIANTS["riformer-s12_in1k"].architecture
    model = model_from_state(architecture, Form.TRAINING, random_state(architecture))
    options = BenchOptions(batches=_BATCHES, rounds=5, repeats=1, warmup=1)
    with tempfile.TemporaryDirectory() as folder:
        candidates = _candidates(model, Path(folder), options.used_threads)
        sizes: dict[str, JsonValue] = {
            path.stem: path.stat().st_size for path in sorted(Path(folder).glob("*.onnx"))
        }
        result = measure_latency(
            candidates,
            synthetic_images(max(_BATCHES), _SIZE, seed=0),
            InputImages(description="synthetic", image_size_px=_SIZE, batches=_BATCHES, seed=0),
            options,
        )
    medians: dict[str, JsonValue] = {
        f"batch {sample.batch}: {sample.name}": round(sample.summary.median_ms, 2)
        for sample in sorted(result.samples, key=lambda item: (item.batch, item.summary.median_ms))
    }
    warned = [f"batch {sample.batch}: {sample.name}" for sample in result.samples if sample.warning]
    least: dict[str, JsonValue] = {
        f"batch {sample.batch}: {sample.name}": round(min(sample.samples_ms), 2) for sample in result.samples
    }
    write_result(
        "cpu_latency",
        f"S12 at 224 px, random weights, {options.used_threads} threads: milliseconds per call. "
        "The machine is a virtual one that other processes shared while this ran.",
        {
            "unstable_series": f"{len(warned)} of {len(result.samples)}",
            "medians_ms": medians,
            "minima_ms": least,
            "file_bytes": sizes,
            "latency": to_jsonable(result),
        },
        _targets(result, [item.name for item in candidates]),
    )


if __name__ == "__main__":
    main()
