"""What ``tune`` finds for a CPU, beside every untuned form of ours and NNCF's INT8 of the same model.

Speed is S12's at 224 px with random weights; accuracy is the trained digits', lowered to the form that was
found and judged beside what NNCF makes of them. ``_peers.py`` says what NNCF needs::

    python benchmarks/tune_comparison.py --nncf NNCF/bin/python
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from _common import RESULTS, naive_export, random_state, target, write_result
from _lowered import DEFAULT_FORMS, STREAM_INT8, calibrated, write_form
from _peers import RUNTIMES, PeerFile, Peers, Tool, add_arguments, peers_of, quantized

from riformer_deploy import TuneOptions, export_checkpoint, tune_bundle
from riformer_deploy.api.export import ExportOptions
from riformer_deploy.backends.base import Candidate
from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision, RuntimeKind
from riformer_deploy.common.serialization import JsonValue, load_json, to_jsonable

# Internals: forms are written without a bundle around them.
from riformer_deploy.data.calibration import CalibrationSet, random_set
from riformer_deploy.data.calibration_files import calibration_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.data.transforms import normalize
from riformer_deploy.evaluation.bench_options import BenchOptions
from riformer_deploy.evaluation.latency import measure_latency
from riformer_deploy.evaluation.metrics import deviation
from riformer_deploy.evaluation.results import InputImages, LatencyResult, LatencySamples
from riformer_deploy.model.network import RIFormer
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS
from riformer_deploy.quantization.accuracy_control import calibration_config
from riformer_deploy.quantization.calibration import CalibrationResult
from riformer_deploy.quantization.search_space import asked_of

_ROOT = Path(__file__).parent.parent
_DIGITS = _ROOT / "examples" / "riformer-digits.pth"
_DIGITS_DATA = _ROOT / "tests" / "data" / "riformer-digits.npz"
_VARIANT = "riformer-s12_in1k"
_BATCHES = (1, 8)
_PEER_IMAGES = 16
"""For S12: speed does not depend on ranges."""
_GROUPS = {RuntimeKind.ONNX_RUNTIME: Group.ONNX, RuntimeKind.OPENVINO: Group.OPENVINO}
_FAST = (Precision.FP32, Precision.BF16, Precision.INT8)
"""CPUs compute in these; ``cpu_latency.py`` times the others, too."""
_STREAM = "stream int8"
_UNTUNED = {name: config for name, config in DEFAULT_FORMS.items() if config.precision in _FAST} | {
    f"int8 group, {_STREAM}": STREAM_INT8
}
"""What ``export`` makes; and the fastest form in OpenVINO, which tune tries, too: it is beyond the parity
tolerance of S12 with these weights, so that it is no measure of what tune finds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found for one runtime.

    Attributes:
        config: The form, as asked for.
        path: The graph.
        said: How the search went.
    """

    config: LoweringConfig
    path: Path
    said: dict[str, JsonValue]


def _preprocessing(side_px: int) -> Preprocessing:
    return Preprocessing(resize_short_edge_px=None, crop_px=(side_px, side_px))


def _tuned(bundle: Path, kind: RuntimeKind, folder: Path, max_seconds: float) -> Tuned:
    """Tune a copy of a bundle for a runtime."""
    copy = folder / f"tuned.{kind}"
    shutil.copytree(bundle, copy)
    options = TuneOptions(
        calibration="random", group=_GROUPS[kind], batches=_BATCHES, max_seconds=max_seconds
    )
    result = tune_bundle(copy, options)
    (graph,) = (item for item in Bundle.open(copy).manifest.onnx if item.file.path == result.file)
    config, trace = asked_of(graph.lowering), result.trace
    said: dict[str, JsonValue] = {
        "form": result.answer.name,
        "config": to_jsonable(config),
        "proven_faster": trace.confirmed,
        "complete": trace.complete,
        "spent_s": round(trace.spent_s, 1),
        "trials": len(trace.trials),
        "searched_utc": result.created_utc,
    }
    return Tuned(config=config, path=copy / result.file, said=said)


def _found_before(folded: RIFormer, calibration: CalibrationResult, folder: Path) -> dict[RuntimeKind, Tuned]:
    """What the stored result says that searches found, written anew."""
    stored = json.loads((RESULTS / "tune_comparison.json").read_text(encoding="utf-8"))["figures"]["answers"]
    found = {}
    for kind, (title, _) in RUNTIMES.items():
        config = load_json(LoweringConfig, json.dumps(stored[title]["config"]))
        path = write_form(folded, config, calibration, _preprocessing(224), folder / f"found.{kind}.onnx")
        found[kind] = Tuned(config=config, path=path, said=stored[title])
    return found


def _configs(
    untuned: Mapping[str, tuple[Precision, Path]],
    tuned: Mapping[RuntimeKind, Tuned],
    peers: Mapping[str, PeerFile],
) -> dict[CandidateConfig, Path]:
    """Everything that is timed; a form whose file is the tuned one, byte for byte, is timed once."""
    found: dict[CandidateConfig, Path] = {}
    for kind, (title, _) in RUNTIMES.items():
        answer = tuned[kind]
        content = answer.path.read_bytes()
        found[_tuned_config(kind, answer)] = answer.path
        for name, (precision, path) in untuned.items():
            # ONNX Runtime has no CPU kernels for bfloat16.
            runs = precision is not Precision.BF16 or kind is not RuntimeKind.ONNX_RUNTIME
            if runs and path.read_bytes() != content:
                found[CandidateConfig(runtime=kind, precision=precision, label=f"{title} {name}")] = path
        for name, file in peers.items():
            if kind in file.runtimes:
                label = f"{title}: {name}"
                found[CandidateConfig(runtime=kind, precision=Precision.INT8, label=label)] = file.path
    return found


def _tuned_config(kind: RuntimeKind, answer: Tuned) -> CandidateConfig:
    return CandidateConfig(
        runtime=kind, precision=answer.config.precision, label=f"{RUNTIMES[kind][0]}, tuned"
    )


def _time(configs: Mapping[CandidateConfig, Path]) -> tuple[LatencyResult, ...]:
    """Interleaved rounds of each runtime's files: threads of one would spin while the other's run."""
    return tuple(
        _time_one({config: path for config, path in configs.items() if config.runtime is kind})
        for kind in RUNTIMES
    )


def _time_one(configs: Mapping[CandidateConfig, Path]) -> LatencyResult:
    options = BenchOptions(batches=_BATCHES, rounds=11, repeats=5, warmup=2)
    candidates = [
        Candidate(
            config=config,
            artifact_sha256="",
            open=functools.partial(RUNTIMES[config.runtime][1], path, threads=options.used_threads),
        )
        for config, path in configs.items()
    ]
    return measure_latency(
        candidates,
        synthetic_images(max(_BATCHES), (224, 224), seed=0),
        InputImages(description="synthetic", image_size_px=(224, 224), batches=_BATCHES, seed=0),
        options,
    )


def _digits_sqnr(
    tuned: Mapping[RuntimeKind, Tuned], peers: Peers, folder: Path
) -> dict[str, dict[str, float]]:
    """SQNR and changed classes of the digits in the tuned forms and as NNCF quantises them, by runtime."""
    preprocessing = _preprocessing(64)
    with np.load(_DIGITS_DATA) as stored:
        calibration = normalize(stored["calibration_images"], preprocessing)
        images = normalize(stored["val_images"], preprocessing)
    folded = fold(model_of(_DIGITS))
    with torch.inference_mode():
        exact = model_of(_DIGITS, torch.float64)
        true = np.concatenate(
            [exact(torch.from_numpy(part).double()).numpy() for part in np.array_split(images, 25)]
        )
    sources = _sources(
        model_of(_DIGITS), folded, calibration_set(str(_DIGITS_DATA), preprocessing), folder, 64
    )
    theirs, _ = quantized(sources, folder, calibration, peers, (), control=False)
    found: dict[str, dict[str, float]] = {}
    for kind, (title, start) in RUNTIMES.items():
        config = tuned[kind].config
        images_of = calibration_set(str(_DIGITS_DATA), preprocessing)
        result = calibrated(folded, images_of, calibration_config([config]))
        path = write_form(folded, config, result, preprocessing, folder / f"digits.{kind}.onnx")
        files = {f"{title}, tuned": path}
        files |= {
            f"{title}: {name}": file.path
            for name, file in theirs.items()
            if kind in file.runtimes and file.tool is Tool.NNCF
        }
        for name, file in files.items():
            runtime = start(file)
            logits = np.concatenate([runtime.run(part)["logits"] for part in np.array_split(images, 25)])
            distance = deviation(true, logits, rtol=0, atol=1)
            changed = int((logits.argmax(1) != true.argmax(1)).sum())
            found[name] = {"sqnr_db": round(distance.sqnr_db or 0.0, 3), "changed_classes": changed}
    return found


def _sources(
    model: RIFormer, folded: RIFormer, images: CalibrationSet, folder: Path, side_px: int
) -> dict[str, Path]:
    """What the peers quantise: what a user without this toolkit has, and our folded float32."""
    path = folder / f"folded.{side_px}.onnx"
    group = DEFAULT_FORMS["fp32 group"]
    return {
        "naive export": naive_export(model, folder / f"naive.{side_px}.onnx", side_px),
        "our folded export, group": write_form(
            folded, group, calibrated(folded, images), _preprocessing(side_px), path
        ),
    }


def _targets(
    samples: Sequence[LatencySamples],
    tuned: Mapping[RuntimeKind, Tuned],
    digits: Mapping[str, Mapping[str, float]],
) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for kind, (title, _) in RUNTIMES.items():
        answer = _tuned_config(kind, tuned[kind])
        for batch in _BATCHES:
            medians = {
                item.config: item.summary.median_ms
                for item in samples
                if item.batch == batch and item.config.runtime is kind
            }
            ours = [
                config
                for config in medians
                if config.name.startswith(f"{title} ") and _STREAM not in config.name
            ]
            best = min(ours, key=medians.__getitem__)
            found[f"{title}, batch {batch}: best untuned form ({best.name}) over tuned"] = target(
                medians[best] / medians[answer], 1.0, at_most=False
            )
            for config, value in medians.items():
                if f": {Tool.NNCF} quantize" in config.name:
                    found[f"batch {batch}: {config.name} over tuned"] = target(
                        value / medians[answer], 1.2, at_most=False
                    )
        for name, row in digits.items():
            if name.startswith(f"{title}: {Tool.NNCF} quantize"):
                found[f"digits: tuned form's SQNR less that of {name}, dB"] = target(
                    digits[f"{title}, tuned"]["sqnr_db"] - row["sqnr_db"], 3.0, at_most=False
                )
    return found


def main() -> None:
    """Tune, then time and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of each search")
    parser.add_argument("--found-before", action="store_true", help="time what the stored result found")
    asked = parser.parse_args()
    peers = peers_of(asked)
    architecture = VARIANTS[_VARIANT].architecture
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = random_state(architecture)
        torch.save({"state_dict": state}, folder / "s12.pth")
        model = model_of(folder / "s12.pth")
        folded, images = fold(model), random_set(_preprocessing(224))
        calibration = calibrated(folded, images)
        if asked.found_before:
            tuned = _found_before(folded, calibration, folder)
        else:
            export_checkpoint(ExportOptions(checkpoint=folder / "s12.pth", output=folder / "s12"))
            tuned = {kind: _tuned(folder / "s12", kind, folder, asked.max_seconds) for kind in RUNTIMES}
        untuned = {
            form: (
                config.precision,
                write_form(folded, config, calibration, _preprocessing(224), folder / f"{n}.onnx"),
            )
            for n, (form, config) in enumerate(_UNTUNED.items())
        }
        few = np.concatenate(list(images.batches()))[:_PEER_IMAGES]
        sources = _sources(model, folded, images, folder, 224)
        theirs, failures = quantized(sources, folder, few, peers, (), control=False)
        latency = _time(_configs(untuned, tuned, theirs))
        digits = _digits_sqnr(tuned, peers, folder)
    samples = [sample for result in latency for sample in result.samples]
    medians: dict[str, JsonValue] = {
        f"batch {sample.batch}: {sample.name}": round(median(sample.samples_ms), 2)
        for sample in sorted(samples, key=lambda item: (item.batch, item.summary.median_ms))
    }
    write_result(
        "tune_comparison",
        "What tune finds for S12 at 224 px (random weights) at batches 1 and 8, against untuned forms and "
        "NNCF's INT8, medians of interleaved turns, ms; SQNR of the trained digits in the same forms",
        {
            "answers": {RUNTIMES[kind][0]: answer.said for kind, answer in tuned.items()},
            "medians_ms": medians,
            "digits": to_jsonable(digits),
            "peers": dict(peers.versions),
            "peers_failed": dict(failures),
            "latency": [to_jsonable(result) for result in latency],
        },
        _targets(samples, tuned, digits),
    )


if __name__ == "__main__":
    main()
