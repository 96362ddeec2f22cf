"""Our FP32 ONNX file in ONNX Runtime beside the unfolded export and PyTorch, S12 at 224 px."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from _common import naive_export, random_state, target, write_result

from riformer_deploy.backends.base import Candidate, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.serialization import to_jsonable

# Internals: the graph is measured without a bundle around it.
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.results import InputImages
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import DEFAULT_OPSET, OnnxOptions, export_onnx
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS

_SIZE = (224, 224)
_BATCHES = (1, 8)
_EAGER, _COMPILED = "PyTorch eager, training form", "PyTorch compiled, training form"
_NAIVE, _OURS = "ONNX Runtime, unfolded export", "ONNX Runtime, ours"


def main() -> None:
    """Interleaved rounds of the four, raw samples kept."""
    architecture = VARIANTS["riformer-s12_in1k"].architecture
    model = model_from_state(architecture, Form.TRAINING, random_state(architecture))
    options = BenchOptions(batches=_BATCHES, rounds=15, repeats=3)
    threads = options.used_threads
    with tempfile.TemporaryDirectory() as folder:
        naive, ours = Path(folder) / "naive.onnx", Path(folder) / "ours.onnx"
        naive_export(model, naive, _SIZE[0])
        lowered = lower(
            fold(model), LoweringConfig(), Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
        )
        export_onnx(lowered, ours, OnnxOptions(image_size_px=_SIZE), {})
        pytorch, onnx = RuntimeKind.PYTORCH, RuntimeKind.ONNX_RUNTIME
        runtimes: dict[str, tuple[RuntimeKind, Callable[[], Runtime]]] = {
            _EAGER: (pytorch, lambda: PyTorchRuntime(model, threads=threads)),
            _COMPILED: (pytorch, lambda: PyTorchRuntime(model, compiled=True, threads=threads)),
            _NAIVE: (onnx, lambda: OnnxRuntime(naive, threads=threads)),
            _OURS: (onnx, lambda: OnnxRuntime(ours, threads=threads)),
        }
        candidates = [
            Candidate(
                config=CandidateConfig(runtime=kind, precision=Precision.FP32, label=name),
                artifact_sha256="",
                open=start,
            )
            for name, (kind, start) in runtimes.items()
        ]
        result = measure_latency(
            candidates,
            synthetic_images(max(_BATCHES), _SIZE, seed=0),
            InputImages(description="synthetic", image_size_px=_SIZE, batches=_BATCHES, seed=0),
            options,
        )
    median = {(sample.name, sample.batch): sample.summary.median_ms for sample in result.samples}
    write_result(
        "fp32_latency",
        f"S12 at 224 px, opset {DEFAULT_OPSET}: milliseconds per call",
        {"latency": to_jsonable(result)},
        {
            f"batch {batch}: {other} over ours": target(
                median[other, batch] / median[_OURS, batch], limit, at_most=False
            )
            for batch in _BATCHES
            for other, limit in ((_NAIVE, 1.0), (_EAGER, 1.5))
        },
    )


if __name__ == "__main__":
    main()
