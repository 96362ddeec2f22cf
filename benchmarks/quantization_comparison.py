"""INT8 and FP8 of ours beside ONNX Runtime's and NVIDIA ModelOpt's, on the trained digits model.

All are calibrated on the same 128 images and judged on the same 397 in ONNX Runtime, against the training
form in float64. ModelOpt needs packages that clash with ours, so it runs in an environment of its own::

    python -m venv /tmp/modelopt && /tmp/modelopt/bin/pip install "nvidia-modelopt[onnx]"
    python benchmarks/quantization_comparison.py --modelopt /tmp/modelopt/bin/python
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import naive_export, target, write_result
from numpy.typing import NDArray

from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.stored_models import model_of
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Method, Precision
from riformer_deploy.common.serialization import JsonValue

# Internals: graphs are made from the same calibration as those of other tools.
from riformer_deploy.data.calibration_files import calibration_set
from riformer_deploy.data.preprocessing import Preprocessing
from riformer_deploy.data.transforms import normalize
from riformer_deploy.evaluation.metrics import deviation
from riformer_deploy.evaluation.proportion_stats import mcnemar_exact
from riformer_deploy.export.lowering import lower
from riformer_deploy.export.onnx_export import OnnxOptions, export_onnx
from riformer_deploy.model.reparameterize import fold
from riformer_deploy.quantization.calibration import CalibrationConfig, CalibrationResult, measure
from riformer_deploy.quantization.resolving import resolve_lowering

_ROOT = Path(__file__).parent.parent
_CHECKPOINT = _ROOT / "examples" / "riformer-digits.pth"
_DATA = _ROOT / "tests" / "data" / "riformer-digits.npz"
_SIZE = (64, 64)
_PREPROCESSING = Preprocessing(resize_short_edge_px=None, crop_px=_SIZE)
_OURS = "riformer-deploy"

_MODELOPT = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize
source, images, output, method = sys.argv[1:]
quantize(source, quantize_mode="int8", calibration_data={"images": np.load(images)},
         calibration_method=method, calibration_eps=["cpu"], output_path=output,
         high_precision_dtype="fp32", log_level="ERROR")
"""

Images = NDArray[np.float32]


def _ours(folder: Path) -> dict[str, Path]:
    """Our files, lowered and written as ``export`` does; they are compared here, with no parity report."""
    choices = {
        "fp32": LoweringConfig(),
        "fp16": LoweringConfig(precision=Precision.FP16),
        "int8, max": LoweringConfig(precision=Precision.INT8, method=Method.MAX),
        "int8, mse": LoweringConfig(precision=Precision.INT8),
        "int8, mse, base fp16": LoweringConfig(precision=Precision.INT8, int8_base=Precision.FP16),
        "fp8": LoweringConfig(precision=Precision.FP8),
    }
    folded, images = fold(model_of(_CHECKPOINT)), calibration_set(str(_DATA), _PREPROCESSING)
    files = {}
    for number, (name, choice) in enumerate(choices.items()):
        measured = measure(folded, images, "benchmark", CalibrationConfig(method=choice.range_method))
        config = resolve_lowering(choice, CalibrationResult(images=images, calibration=measured))
        files[f"{_OURS} {name}"] = path = folder / f"ours{number}.onnx"
        export_onnx(lower(folded, config, _PREPROCESSING), path, OnnxOptions(image_size_px=_SIZE), {})
    return files


def _onnxruntime(source: Path, images: Images, method: str, layers: list[str] | None, output: Path) -> None:
    """``quantize_static`` as ONNX Runtime's documentation sets it for TensorRT."""
    from onnxruntime import quantization  # noqa: PLC0415  # slow to import, and only here
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
        """Sixteen images at a time."""

        def __init__(self) -> None:
            self._parts: Iterator[Images] = iter(np.split(images, len(images) // 16))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self._parts, None)
            return None if part is None else {"images": part}

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        output,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        calibrate_method=quantization.CalibrationMethod[method],
        op_types_to_quantize=layers,
        # TensorRT refuses a DequantizeLinear over an int32 bias.
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )


def _modelopt(python: str | None, source: Path, images: Path, method: str, output: Path) -> None:
    subprocess.run(  # noqa: S603  # an interpreter that the user named
        (str(python), "-c", _MODELOPT, str(source), str(images), str(output), method),
        check=True,
        capture_output=True,
        text=True,
    )


def _modelopt_version(python: str | None) -> str | None:
    """The baseline's version; None where it takes no part."""
    if python is None:
        return None
    code = "import importlib.metadata as m; print(m.version('nvidia-modelopt'))"
    ran = subprocess.run(  # noqa: S603  # an interpreter that the user named
        (python, "-c", code), check=True, capture_output=True, text=True
    )
    return ran.stdout.strip()


def _attempt(make: Callable[[], object]) -> str | None:
    """Run a baseline; why it failed, or None."""
    try:
        make()
    except subprocess.CalledProcessError as err:
        return str(err.stderr).strip().splitlines()[-1]
    except Exception as err:  # noqa: BLE001  # a baseline that fails is a finding, whatever it raises
        return f"{type(err).__name__}: {err}"[:300]
    return None


class _Tool(StrEnum):
    """Whose quantisation ours is compared with."""

    ONNX_RUNTIME = "ONNX Runtime"
    MODELOPT = "ModelOpt"


def _baselines(
    sources: dict[str, Path], folder: Path, images: Images, modelopt: str | None
) -> tuple[dict[_Tool, dict[str, Path]], dict[str, JsonValue]]:
    """The baselines' files by tool and name, and by name why there is none."""
    stored = folder / "images.npy"
    np.save(stored, images)
    todo: dict[tuple[_Tool, str], Callable[[Path], object]] = {}
    for form, source in sources.items():
        for method in ("MinMax", "Entropy", "Percentile"):
            for what, layers in (("default operators", None), ("Conv and Gemm", ["Conv", "Gemm"])):
                name = f"ONNX Runtime quantize_static {method}, {what}, {form}"
                todo[_Tool.ONNX_RUNTIME, name] = functools.partial(
                    _onnxruntime, source, images, method, layers
                )
        for method in ("max", "entropy"):
            todo[_Tool.MODELOPT, f"ModelOpt {method}, {form}"] = functools.partial(
                _modelopt, modelopt, source, stored, method
            )
    files: dict[_Tool, dict[str, Path]] = {tool: {} for tool in _Tool}
    failures: dict[str, JsonValue] = {}
    for number, ((tool, name), run) in enumerate(todo.items()):
        path = folder / f"baseline{number}.onnx"
        if tool is _Tool.MODELOPT and modelopt is None:
            failures[name] = "not run: no --modelopt was given"
            continue
        reason = _attempt(functools.partial(run, path))
        if reason is None:
            files[tool][name] = path
        else:
            failures[name] = reason
    return files, failures


def _compare(
    path: Path, images: Images, true: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """SQNR, top-1 and size of one file."""
    runtime = OnnxRuntime(path)
    logits = np.concatenate([runtime.run(part)["logits"] for part in np.array_split(images, 25)])
    distance = deviation(true, logits, rtol=0, atol=1)
    return {
        "sqnr_db": distance.sqnr_db,
        "top1_percent": 100 * float((logits.argmax(1) == labels).mean()),
        "changed_classes": int((logits.argmax(1) != true.argmax(1)).sum()),
        "file_bytes": path.stat().st_size,
        "right": [bool(right) for right in logits.argmax(1) == labels],
    }


def _paired(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> JsonValue:
    """Images that only one of two is right about, and how probable so uneven a split is by chance."""
    pairs = list(zip(ours["right"], theirs["right"], strict=True))
    lost, gained = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    return {"only_theirs": lost, "only_ours": gained, "mcnemar_p": mcnemar_exact(lost, gained)}


def main() -> None:
    """Quantise and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modelopt", help="a Python interpreter that has nvidia-modelopt[onnx]")
    asked = parser.parse_args()
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
            "our folded export": files[f"{_OURS} fp32"],
        }
        theirs, failures = _baselines(sources, folder, calibration, asked.modelopt)
        everything = {"naive export fp32": sources["naive export"], **files}
        for of_tool in theirs.values():
            everything |= of_tool
        compared = {name: _compare(path, images, true, labels) for name, path in everything.items()}
    ours = compared[f"{_OURS} int8, mse"]
    exact = 100 * float((true.argmax(1) == labels).mean())
    targets: dict[str, JsonValue] = {
        "our SQNR, dB": target(ours["sqnr_db"], 38.5, at_most=False),
        "top-1 lost, points": target(exact - ours["top1_percent"], 0.3),
    }
    for baseline in _Tool:
        rows = [compared[name] for name in theirs[baseline]]
        if rows:
            best = max(row["sqnr_db"] for row in rows)
            smallest = min(row["file_bytes"] for row in rows)
            top1 = max(row["top1_percent"] for row in rows)
            targets[f"our SQNR less {baseline}'s best, dB"] = target(ours["sqnr_db"] - best, 0, at_most=False)
            targets[f"our top-1 less {baseline}'s best, points"] = target(
                ours["top1_percent"] - top1, 0, at_most=False
            )
            targets[f"our file over {baseline}'s smallest"] = target(ours["file_bytes"] / smallest, 1)
    write_result(
        "quantization_comparison",
        "riformer-digits, 128 calibration images, 397 judged in ONNX Runtime against the training form in "
        "float64",
        {
            "modelopt": _modelopt_version(asked.modelopt),
            "reference_top1_percent": exact,
            "judged": {
                name: {key: value for key, value in row.items() if key != "right"}
                for name, row in compared.items()
            },
            "paired_with_ours": {name: _paired(ours, row) for name, row in compared.items()},
            "failed": failures,
        },
        targets,
    )


if __name__ == "__main__":
    main()
