"""The CPU: S12 in PyTorch, ONNX Runtime and OpenVINO, in every precision and norm form, at 224 px.

INT8 files of other tools take part in the same rounds; ``_peers.py`` says what they need::

    python benchmarks/cpu_latency.py --nncf NNCF/bin/python --modelopt MODELOPT/bin/python
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import naive_export, random_state, target, write_result
from _lowered import DEFAULT_FORMS, STREAM_INT8, calibrated, write_form
from _peers import RUNTIMES, Peers, Tool, add_arguments, peers_of, quantized

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import (
    LayerGroup,
    MlpForm,
    NormForm,
    Precision,
    RuntimeKind,
)
from riformer_deploy.common.serialization import JsonValue, to_jsonable

# Internals: graphs are made in every form without a bundle around them.
from riformer_deploy.data.calibration import random_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.results import InputImages, LatencyResult
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS

_SIZE = (224, 224)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
_BATCHES = (1, 8)
_TITLES = {kind: title for kind, (title, _) in RUNTIMES.items()}
_CALIBRATION_IMAGES = 16
"""Random ones, for the peers: speed does not depend on ranges."""
_INT8_FORMS = {
    # ONNX Runtime has fast int8 kernels for matrix products, not for convolutions of what is not int8 behind.
    "int8 instance, products alone": LoweringConfig(
        precision=Precision.INT8,
        mlp=MlpForm.MATMUL,
        exclude_layers=(LayerGroup.STEM, LayerGroup.DOWNSAMPLING, LayerGroup.HEAD),
    ),
    "int8 group, stream int8": STREAM_INT8,
    "int8 group, stream int8 in stages 0 and 2": dataclasses.replace(
        STREAM_INT8, residual_blocks=("backbone.network.0", "backbone.network.2")
    ),
}
"""More of ours: forms that a runtime runs fast."""


def _config(label: str, runtime: RuntimeKind, precision: Precision) -> CandidateConfig:
    return CandidateConfig(runtime=runtime, precision=precision, label=label)


def _ours(runtime: RuntimeKind, precision: Precision, norm: NormForm) -> CandidateConfig:
    """One of our files in a runtime."""
    return _config(f"{_TITLES[runtime]} {precision} {norm}", runtime, precision)


def _graphs(model: RIFormer, folder: Path) -> dict[str, tuple[Precision, Path]]:
    """Our files: every norm form of every precision, and more forms of int8."""
    folded = fold(model)
    calibration = calibrated(folded, random_set(_PREPROCESSING))
    files = {}
    for name, config in (DEFAULT_FORMS | _INT8_FORMS).items():
        path = folder / f"{name.replace(' ', '.')}.onnx"
        files[name] = (config.precision, write_form(folded, config, calibration, _PREPROCESSING, path))
    return files


def _theirs(
    sources: dict[str, Path], folder: Path, peers: Peers, threads: int
) -> tuple[dict[CandidateConfig, Callable[[], Runtime]], dict[str, str]]:
    """The peers' files in every runtime that takes them, and by name why there is none."""
    images = np.concatenate(list(random_set(_PREPROCESSING).batches()))[:_CALIBRATION_IMAGES]
    files, failures = quantized(sources, folder, images, peers)
    starts = {
        _config(f"{_TITLES[kind]}: {name}", kind, Precision.INT8): _opener(
            RUNTIMES[kind][1], file.path, threads
        )
        for name, file in files.items()
        for kind in file.runtimes
    }
    return starts, failures


def _candidates(
    model: RIFormer, folder: Path, peers: Peers, threads: int
) -> tuple[list[Candidate], dict[str, str]]:
    """What is timed, and by name which peer's file there is none of."""
    folded, naive = fold(model), naive_export(model, folder / "naive.onnx", _SIZE[0])
    half = fold(model).to(torch.bfloat16)
    fp32, bf16, pytorch = Precision.FP32, Precision.BF16, RuntimeKind.PYTORCH
    starts: dict[CandidateConfig, Callable[[], Runtime]] = {
        _EAGER: lambda: PyTorchRuntime(model, threads=threads),
        _config("PyTorch eager fp32, folded", pytorch, fp32): lambda: PyTorchRuntime(folded, threads=threads),
        _config("PyTorch compiled fp32, folded", pytorch, fp32): lambda: PyTorchRuntime(
            folded, compiled=True, threads=threads
        ),
        _config("PyTorch eager bf16, folded", pytorch, bf16): lambda: PyTorchRuntime(
            half, dtype=torch.bfloat16, threads=threads
        ),
        _config("PyTorch compiled bf16, folded", pytorch, bf16): lambda: PyTorchRuntime(
            half, dtype=torch.bfloat16, compiled=True, threads=threads
        ),
        _NAIVE[RuntimeKind.ONNX_RUNTIME]: _opener(OnnxRuntime, naive, threads),
        _NAIVE[RuntimeKind.OPENVINO]: _opener(OpenVinoRuntime, naive, threads),
    }
    graphs = _graphs(model, folder)
    for name, (precision, path) in graphs.items():
        for kind, (title, opener) in RUNTIMES.items():
            # ONNX Runtime has no CPU kernels for bfloat16.
            if precision is not Precision.BF16 or kind is not RuntimeKind.ONNX_RUNTIME:
                starts[_config(f"{title} {name}", kind, precision)] = _opener(opener, path, threads)
    sources = {"naive export": naive, "our folded export, group": graphs["fp32 group"][1]}
    theirs, failures = _theirs(sources, folder, peers, threads)
    made = [
        Candidate(config=config, artifact_sha256="", open=start)
        for config, start in (starts | theirs).items()
    ]
    return made, failures


def _opener(kind: Callable[..., Runtime], path: Path, threads: int) -> Callable[[], Runtime]:
    return lambda: kind(path, threads=threads)


_EAGER = _config("PyTorch eager fp32, training form", RuntimeKind.PYTORCH, Precision.FP32)
_NAIVE = {
    runtime: _config(f"{title}, the naive export fp32", runtime, Precision.FP32)
    for runtime, title in _TITLES.items()
}


def _is_int8(config: CandidateConfig, runtime: RuntimeKind) -> bool:
    return config.runtime is runtime and config.precision is Precision.INT8


def _is_peers(config: CandidateConfig) -> bool:
    """Whether another tool made the file."""
    return any(config.name.startswith(f"{title}: {tool} ") for title in _TITLES.values() for tool in Tool)


def _targets(result: LatencyResult) -> dict[str, JsonValue]:
    """Ratios of medians, each within one batch size."""
    found: dict[str, JsonValue] = {}
    for batch in _BATCHES:
        median = {item.config: item.summary.median_ms for item in result.samples if item.batch == batch}
        ours = [
            config
            for config in median
            if config.runtime is not RuntimeKind.PYTORCH
            and config not in _NAIVE.values()
            and not _is_peers(config)
        ]
        best = min(ours, key=median.__getitem__)
        ratio = median[_EAGER] / median[best]
        found[f"batch {batch}: eager over the best artifact ({best.name})"] = target(
            ratio, 7.0, at_most=False
        )
        for runtime, title in _TITLES.items():
            default = median[_ours(runtime, Precision.FP32, NormForm.INSTANCE)]
            found[f"batch {batch}, {title}: naive export over our default fp32"] = target(
                median[_NAIVE[runtime]] / default, 1.0, at_most=False
            )
            int8 = [median[item] for item in ours if _is_int8(item, runtime)]
            rest = [median[item] for item in ours if item.runtime is runtime and not _is_int8(item, runtime)]
            found[f"batch {batch}, {title}: the best that is not int8 over our best int8"] = target(
                min(rest) / min(int8), 1.0, at_most=False
            )
            for config in filter(_is_peers, median):
                if config.runtime is runtime and f"{Tool.NNCF} quantize" in config.name:
                    found[f"batch {batch}: {config.name} over our best int8"] = target(
                        median[config] / min(int8), 1.2, at_most=False
                    )
    return found


def main() -> None:
    """Interleaved rounds of all, raw samples kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    peers = peers_of(parser.parse_args())
    architecture = VARIANTS["riformer-s12_in1k"].architecture
    model = model_from_state(architecture, Form.TRAINING, random_state(architecture))
    options = BenchOptions(batches=_BATCHES, rounds=5, repeats=1, warmup=1)
    with tempfile.TemporaryDirectory() as folder:
        candidates, failures = _candidates(model, Path(folder), peers, options.used_threads)
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
            "peers": dict(peers.versions),
            "peers_failed": dict(failures),
            "latency": to_jsonable(result),
        },
        _targets(result),
    )


if __name__ == "__main__":
    main()
