"""Decoding overlaps inference: an accuracy pass costs what its slower part costs, not both."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from _common import random_state, target, write_result
from PIL import Image

from riformer_deploy.backends.base import Candidate, Outputs, Runtime
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision, RuntimeKind
from riformer_deploy.common.serialization import JsonValue
from riformer_deploy.data.class_folders import ClassList

# Internals: decoding and inference are timed apart; api does both in one pass.
from riformer_deploy.data.class_names import imagenet_names
from riformer_deploy.data.datasets import Dataset, open_dataset
from riformer_deploy.data.loader import LoaderOptions, load_batches
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.accuracy import AccuracyTask, measure_accuracy
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS

_PICTURES, _BATCH, _ROUNDS = 96, 8, 4
_SIZES = {"500x375 px": (500, 375), "2400x1800 px": (2400, 1800)}
_WAIT_S = 0.25


class _Accelerator:
    """Inference elsewhere: a batch takes its time and none of this machine's cores."""

    def run(self, images: Images) -> Outputs:
        time.sleep(_WAIT_S)
        return {"logits": np.zeros((len(images), 1000), np.float32)}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        raise NotImplementedError

    def close(self) -> None:
        pass


class _Session(OnnxRuntime):
    """One session that serves every round."""

    def close(self) -> None:
        pass


def _pictures(folder: Path, size: tuple[int, int]) -> Dataset:
    rng = np.random.Generator(np.random.PCG64(0))
    for number in range(_PICTURES):
        path = folder / "val" / "n01440764" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (size[1] // 12, size[0] // 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return open_dataset(folder, ClassList(count=1000, names=imagenet_names()))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _measure(dataset: Dataset, runtime: Runtime) -> dict[str, list[float]]:
    """Seconds of decoding alone, inference alone and the whole pass, taking turns."""
    loader = LoaderOptions(preprocessing=VARIANTS["riformer-s12_in1k"].preprocessing, batch=_BATCH, workers=1)
    images = synthetic_images(_BATCH, (224, 224), seed=0)
    config = CandidateConfig(runtime=RuntimeKind.PYTORCH, precision=Precision.FP32, label="S12")
    candidate = Candidate(config=config, artifact_sha256="", open=lambda: runtime)
    task = AccuracyTask(candidates=[candidate], dataset=dataset, loader=loader)
    work: dict[str, Callable[[], object]] = {
        "decoding": lambda: sum(part.count for part in load_batches(dataset, loader)),
        "inference": lambda: [runtime.run(images) for _ in range(_PICTURES // _BATCH)],
        "pass": lambda: measure_accuracy(task),
    }
    samples: dict[str, list[float]] = {name: [] for name in work}
    for number in range(_ROUNDS + 1):
        for name, part in work.items():
            seconds = _seconds(part)
            if number:
                samples[name].append(seconds)
    return samples


def main() -> None:
    """One thread decodes and one infers, so that neither takes the other's core."""
    architecture = VARIANTS["riformer-s12_in1k"].architecture
    figures: dict[str, JsonValue] = {}
    targets: dict[str, JsonValue] = {}
    with tempfile.TemporaryDirectory() as work:
        model = Path(work) / "s12.onnx"
        weights = model_from_state(architecture, Form.TRAINING, random_state(architecture))
        lowered = lower(fold(weights), LoweringConfig(), VARIANTS["riformer-s12_in1k"].preprocessing)
        export_onnx(lowered, model, OnnxOptions(image_size_px=(224, 224)), {})
        runtimes: dict[str, Runtime] = {
            "ONNX Runtime on one core": _Session(model, threads=1),
            f"an accelerator (played: {1000 * _WAIT_S:.0f} ms of waiting a batch)": _Accelerator(),
        }
        for pictures, size in _SIZES.items():
            dataset = _pictures(Path(work) / pictures, size)
            for name, runtime in runtimes.items():
                _add(f"{pictures}, {name}", _measure(dataset, runtime), figures, targets)
    figures["load_average"] = [round(value, 2) for value in os.getloadavg()]
    write_result(
        "accuracy_overlap",
        f"{_PICTURES} JPEG files through S12 at 224 px in batches of {_BATCH}, one thread decoding and one "
        f"inferring; medians of {_ROUNDS} interleaved rounds; ONNX Runtime and decoding need a core each, "
        "so whatever else runs on a machine of two shows in them",
        figures,
        targets,
    )


def _add(
    name: str, samples: dict[str, list[float]], figures: dict[str, JsonValue], targets: dict[str, JsonValue]
) -> None:
    middle = {part: median(values) for part, values in samples.items()}
    decoding, inference = middle["decoding"], middle["inference"]
    figures[name] = {
        "samples_s": {part: list(values) for part, values in samples.items()},
        "medians_s": dict(middle),
        "pass_over_sum": middle["pass"] / (decoding + inference),
    }
    targets[f"{name}: pass over its slower part"] = target(middle["pass"] / max(decoding, inference), 1.15)


if __name__ == "__main__":
    main()
