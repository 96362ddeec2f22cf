"""INT8 and FP8 of ours beside NNCF's, ONNX Runtime's and NVIDIA ModelOpt's, on the trained digits model.

All are calibrated on the same 128 images, judged on the same 397 against the training form in float64, and
timed in interleaved turns, in ONNX Runtime and in OpenVINO. ``_peers.py`` says what the peers need::

    python benchmarks/quantization_comparison.py --nncf NNCF/bin/python --modelopt MODELOPT/bin/python
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import naive_export, target, write_result
from _lowered import STREAM_INT8, calibrated, write_form
from _peers import ALL_METHODS, RUNTIMES, PeerFile, Tool, add_arguments, peers_of, quantized
from numpy.typing import NDArray

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import LayerGroup, Method, MlpForm, NormForm, Precision, RuntimeKind
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.common.serialization import JsonValue

# Internals: graphs are made from the same calibration as those of other tools.
from riformer_deploy.data.calibration_files import calibration_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import normalize
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.metrics import deviation
from riformer_deploy.evaluation.proportion_stats import mcnemar_exact
from riformer_deploy.evaluation.results import InputImages
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.calibration import CalibrationConfig

_ROOT = Path(__file__).parent.parent
_CHECKPOINT = _ROOT / "examples" / "riformer-digits.pth"
_DATA = _ROOT / "tests" / "data" / "riformer-digits.npz"
_SIZE = (64, 64)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
_OURS = "riformer-deploy"
_BATCHES = (1, 8)

Images = NDArray[np.float32]


def _ours(folder: Path) -> dict[str, Path]:
    """Our files, lowered and written as ``export`` does; they are compared here, with no parity report."""
    int8, group = Precision.INT8, NormForm.GROUP
    # What ONNX Runtime has fast int8 kernels for: matrix products. The rest is faster in float32 there.
    products = (LayerGroup.STEM, LayerGroup.DOWNSAMPLING, LayerGroup.HEAD)
    choices = {
        "fp32": LoweringConfig(),
        "fp32, group": LoweringConfig(norm=group),
        "fp16": LoweringConfig(precision=Precision.FP16),
        "int8, max": LoweringConfig(precision=int8, method=Method.MAX),
        "int8, mse": LoweringConfig(precision=int8),
        "int8, mse, group": LoweringConfig(precision=int8, norm=group),
        "int8, mse, group, residual": LoweringConfig(precision=int8, norm=group, quantize_residual=True),
        "int8, mse, group, stream int8": STREAM_INT8,
        "int8, mse, products alone": LoweringConfig(
            precision=int8, mlp=MlpForm.MATMUL, exclude_layers=products
        ),
        "int8, mse, base fp16": LoweringConfig(precision=int8, int8_base=Precision.FP16),
        "fp8": LoweringConfig(precision=Precision.FP8),
    }
    folded, images = fold(model_of(_CHECKPOINT)), calibration_set(str(_DATA), _PREPROCESSING)
    files = {}
    for number, (name, choice) in enumerate(choices.items()):
        wanted = CalibrationConfig(method=choice.range_method, residual=choice.quantize_residual)
        path = folder / f"ours{number}.onnx"
        calibration = calibrated(folded, images, wanted)
        files[f"{_OURS} {name}"] = write_form(folded, choice, calibration, _PREPROCESSING, path)
    return files


def _compare(
    runtime: Runtime, images: Images, true: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """SQNR and top-1 of one file in one runtime."""
    logits = np.concatenate([runtime.run(part)["logits"] for part in np.array_split(images, 25)])
    distance = deviation(true, logits, rtol=0, atol=1)
    return {
        "sqnr_db": distance.sqnr_db,
        "top1_percent": 100 * float((logits.argmax(1) == labels).mean()),
        "changed_classes": int((logits.argmax(1) != true.argmax(1)).sum()),
        "right": [bool(right) for right in logits.argmax(1) == labels],
    }


def _paired(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> JsonValue:
    """Images that only one of two is right about, and how probable so uneven a split is by chance."""
    pairs = list(zip(ours["right"], theirs["right"], strict=True))
    lost, gained = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    return {"only_theirs": lost, "only_ours": gained, "mcnemar_p": mcnemar_exact(lost, gained)}


Key = tuple[str, RuntimeKind]
"""A file's name and what runs it."""


def _judged(
    files: Mapping[str, PeerFile | Path], images: Images, true: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[dict[Key, dict[str, Any]], dict[str, str]]:
    """Every file in every runtime that takes it; and by name why one does not."""
    found: dict[Key, dict[str, Any]] = {}
    failures = {}
    for name, file in files.items():
        path, runtimes = (file.path, file.runtimes) if isinstance(file, PeerFile) else (file, tuple(RUNTIMES))
        for kind in runtimes:
            title, start = RUNTIMES[kind]
            try:
                found[name, kind] = _compare(start(path), images, true, labels)
            except RuntimeFailureError as err:
                failures[f"{name}, {title}"] = err.message.replace(str(path), path.name)[:300]
            else:
                found[name, kind]["path"] = path
                found[name, kind]["file_bytes"] = sum(
                    part.stat().st_size for part in (path, path.with_suffix(".bin")) if part.exists()
                )
    return found, failures


def _time(judged: dict[Key, dict[str, Any]], images: Images) -> None:
    """Add medians of interleaved turns, in milliseconds per call by batch size."""
    options = BenchOptions(batches=_BATCHES, rounds=15, repeats=3, warmup=2)
    precision = Precision.FP32  # what a peer's file is called by plays no part
    configs = {
        CandidateConfig(runtime=kind, precision=precision, label=f"{RUNTIMES[kind][0]}: {name}"): (name, kind)
        for name, kind in judged
    }
    candidates = [
        Candidate(
            config=config,
            artifact_sha256="",
            open=functools.partial(
                RUNTIMES[kind][1], judged[name, kind]["path"], threads=options.used_threads
            ),
        )
        for config, (name, kind) in configs.items()
    ]
    described = InputImages(description="digits", image_size_px=_SIZE, batches=_BATCHES, seed=0)
    result = measure_latency(candidates, images[: max(_BATCHES)], described, options)
    for series in result.samples:
        times = judged[configs[series.config]].setdefault("median_ms", {})
        times[str(series.batch)] = round(series.summary.median_ms, 3)


def _targets(
    judged: dict[Key, dict[str, Any]], theirs: Mapping[str, PeerFile], exact_percent: float
) -> dict[str, JsonValue]:
    ort, openvino = RuntimeKind.ONNX_RUNTIME, RuntimeKind.OPENVINO
    ours = judged[f"{_OURS} int8, mse", ort]
    targets: dict[str, JsonValue] = {
        "our SQNR, dB": target(ours["sqnr_db"], 38.5, at_most=False),
        "top-1 lost, points": target(exact_percent - ours["top1_percent"], 0.3),
    }
    for tool in Tool:
        rows = [row for (name, kind), row in judged.items()
                if kind is ort and name in theirs and theirs[name].tool is tool]  # fmt: skip
        if rows:
            best = max(row["sqnr_db"] for row in rows)
            smallest = min(row["file_bytes"] for row in rows)
            top1 = max(row["top1_percent"] for row in rows)
            targets[f"our SQNR less {tool}'s best, dB"] = target(ours["sqnr_db"] - best, 0, at_most=False)
            targets[f"our top-1 less {tool}'s best, points"] = target(
                ours["top1_percent"] - top1, 0, at_most=False
            )
            targets[f"our file over {tool}'s smallest"] = target(ours["file_bytes"] / smallest, 1)
    mine = judged[f"{_OURS} int8, mse, group", openvino]
    for name, file in theirs.items():
        if file.tool is Tool.NNCF and (name, openvino) in judged:
            difference = mine["sqnr_db"] - judged[name, openvino]["sqnr_db"]
            targets[f"OpenVINO: our group form's SQNR less that of {name}, dB"] = target(
                difference, 3, at_most=False
            )
    return targets


def main() -> None:
    """Quantise, judge and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    peers = peers_of(parser.parse_args())
    with np.load(_DATA) as stored:
        calibration = normalize(stored["calibration_images"], _PREPROCESSING)
        images, labels = normalize(stored["val_images"], _PREPROCESSING), stored["val_labels"]
    with torch.inference_mode():
        model = model_of(_CHECKPOINT, torch.float64)
        parts = np.array_split(images, 25)
        true = np.concatenate([model(torch.from_numpy(part).double()).numpy() for part in parts])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = _ours(folder)
        sources = {
            "naive export": naive_export(model_of(_CHECKPOINT), folder / "naive.onnx", _SIZE[0]),
            "our folded export, group": files[f"{_OURS} fp32, group"],
            "our folded export, instance": files[f"{_OURS} fp32"],
        }
        theirs, failures = quantized(sources, folder, calibration, peers, ALL_METHODS)
        everything: dict[str, PeerFile | Path] = {"naive export fp32": sources["naive export"]}
        everything |= {**files, **theirs}
        judged, unfit = _judged(everything, images, true, labels)
        _time(judged, images)
    ours = judged[f"{_OURS} int8, mse", RuntimeKind.ONNX_RUNTIME]
    exact = 100 * float((true.argmax(1) == labels).mean())
    titled = {f"{RUNTIMES[kind][0]}: {name}": row for (name, kind), row in judged.items()}
    write_result(
        "quantization_comparison",
        "riformer-digits, 128 calibration images, 397 judged against the training form in float64, and "
        "medians of interleaved turns, in ONNX Runtime and OpenVINO",
        {
            "versions": dict(peers.versions),
            "reference_top1_percent": exact,
            "judged": {
                title: {key: value for key, value in row.items() if key not in {"right", "path"}}
                for title, row in titled.items()
            },
            "paired_with_ours": {title: _paired(ours, row) for title, row in titled.items()},
            "failed": {**failures, **unfit},
        },
        _targets(judged, theirs, exact),
    )


if __name__ == "__main__":
    main()
