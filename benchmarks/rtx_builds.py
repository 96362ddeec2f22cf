"""TensorRT-RTX on the CPU: every variant in FP32, FP16 and INT8; what our build adds to the bare calls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import medians, random_state, target, write_result

from riformer_deploy.api.build import BatchProfile, BuildOptions, BuildSettings, TensorRTFlavor, build_engines
from riformer_deploy.api.export import ExportOptions, export_checkpoint

# Internals: the builder's bare calls are timed beside api's build.
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.progress import silent
from riformer_deploy.common.serialization import JsonValue
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.evaluation.results import Status
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import INPUT_NAME, OnnxOptions, export_onnx
from riformer_deploy.export.quantized_layers import quantizable
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.model.variants import VARIANTS, Variant
from riformer_deploy.trt.bindings import TensorRT, load
from riformer_deploy.trt.build_options import DEFAULT_PROFILE
from riformer_deploy.trt.builder import BuildRequest, build_plan

_ROUNDS = 5
_S12 = "riformer-s12_in1k"
_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
_SEVERAL = ("8.0", "8.6", "8.9", "12.0")


def _folded(variant: Variant) -> RIFormer:
    state = random_state(variant.architecture)
    return fold(model_from_state(variant.architecture, Form.TRAINING, state))


def _export(model: RIFormer, precision: Precision, side_px: int, path: Path) -> None:
    """A graph whose int8 ranges are made up: what is built does not depend on them."""
    config = LoweringConfig(precision=precision, ranges=dict.fromkeys(quantizable(model, precision), 4.0))
    preprocessing = Preprocessing(resize_short_edge_px=None, crop_px=(side_px, side_px))
    export_onnx(lower(model, config, preprocessing), path, OnnxOptions(image_size_px=(side_px, side_px)), {})


def _built(
    trt: TensorRT,
    onnx: Path,
    side_px: int,
    profile: BatchProfile = DEFAULT_PROFILE,
    targets: tuple[str, ...] = (),
) -> dict[str, JsonValue]:
    """Build one graph with our builder."""
    said: list[str] = []
    request = BuildRequest(
        onnx=onnx,
        input_name=INPUT_NAME,
        sample_shape=(3, side_px, side_px),
        profiles=(profile,),
        settings=BuildSettings(compute_capabilities=targets),
    )
    start = time.perf_counter()
    built = build_plan(trt, request, silent, lambda severity, text: said.append(f"[{severity}] {text}"))
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "onnx_bytes": onnx.stat().st_size,
        "plan_bytes": len(built.plan),
        "network_layers": sum(built.network_layers.values()),
        "warnings": list(dict.fromkeys(said)),
    }


def _matrix(trt: TensorRT, folder: Path) -> dict[str, JsonValue]:
    """Every variant at its own size, in every precision."""
    found: dict[str, JsonValue] = {}
    for variant in VARIANTS.values():
        model = _folded(variant)
        for precision in _PRECISIONS:
            name = f"{variant.name} {precision}"
            path = folder / "model.onnx"
            _export(model, precision, variant.image_size_px, path)
            found[name] = _built(trt, path, variant.image_size_px)
            print(name, found[name], flush=True)
    return found


def _forms(trt: TensorRT, folder: Path) -> dict[str, JsonValue]:
    """S12 in FP16 for one compute capability, for several, and for one batch size."""
    path = folder / "s12.onnx"
    _export(_folded(VARIANTS[_S12]), Precision.FP16, 224, path)
    one = BatchProfile(minimum=1, optimum=1, maximum=1)
    return {
        "compute capability 8.9": _built(trt, path, 224, targets=("8.9",)),
        f"compute capabilities {', '.join(_SEVERAL)}": _built(trt, path, 224, targets=_SEVERAL),
        "default compute capabilities, batch 1 alone": _built(trt, path, 224, one),
    }


def _bare(trt: TensorRT, onnx: Path, shape: tuple[int, ...]) -> None:
    """What somebody without this toolkit calls: parse, build, write."""
    module: Any = trt.module
    logger = module.Logger(module.Logger.ERROR)
    builder = module.Builder(logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise RuntimeError(f"{onnx} cannot be parsed")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    sizes = (DEFAULT_PROFILE.minimum, DEFAULT_PROFILE.optimum, DEFAULT_PROFILE.maximum)
    profile.set_shape(INPUT_NAME, *((size, *shape) for size in sizes))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    onnx.with_suffix(".bare").write_bytes(plan)


def _beside(trt: TensorRT, folder: Path) -> dict[str, list[float]]:
    """Seconds of ``build_engines`` on a bundle of S12 in FP16, and of the bare calls on its graph."""
    checkpoint = folder / "s12.pth"
    torch.save({"state_dict": random_state(VARIANTS[_S12].architecture)}, checkpoint)
    options = ExportOptions(
        checkpoint=checkpoint,
        output=folder / "s12",
        variant=VARIANTS[_S12],
        lowerings=(LoweringConfig(precision=Precision.FP16),),
        calibration="random",
    )
    if export_checkpoint(options).status is not Status.PASSED:
        raise RuntimeError("the export of S12 failed its parity report")
    bundle = Bundle.open(folder / "s12")
    graph = bundle.path_of(bundle.manifest.onnx[0].file)
    copy = folder / "bare.onnx"
    copy.write_bytes(graph.read_bytes())
    asked = BuildOptions(backend=TensorRTFlavor.TENSORRT_RTX)
    work: dict[str, Callable[[], object]] = {
        "parser and builder": lambda: _bare(trt, copy, (3, 224, 224)),
        "build_engines": lambda: build_engines(folder / "s12", asked),
    }
    samples: dict[str, list[float]] = {name: [] for name in work}
    for number in range(_ROUNDS + 1):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if number > 0:
                samples[name].append(time.perf_counter() - start)
    return samples


def main() -> None:
    """First what is timed side by side, then the matrix."""
    trt = load(TensorRTFlavor.TENSORRT_RTX)
    with tempfile.TemporaryDirectory() as folder:
        samples = _beside(trt, Path(folder))
        middle = medians(samples)
        forms = _forms(trt, Path(folder))
        matrix = _matrix(trt, Path(folder))
    write_result(
        "rtx_builds",
        f"TensorRT-RTX {trt.version} building on the CPU, random weights, batches {DEFAULT_PROFILE}: S12 in "
        f"FP16 beside the bare calls in {_ROUNDS} interleaved rounds; every variant at its own size, once.",
        {
            "samples_s": {name: list(values) for name, values in samples.items()},
            "medians_s": dict(middle),
            "s12_fp16": forms,
            "builds": matrix,
        },
        {
            "S12 FP16: our build over parser and builder": target(
                middle["build_engines"] / middle["parser and builder"], 3.0
            ),
            "variants and precisions built": target(len(matrix), 30, at_most=False),
        },
    )


if __name__ == "__main__":
    main()
