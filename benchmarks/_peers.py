"""INT8 files that other tools make of one of our graphs or of the naive export.

NNCF and ModelOpt need packages that clash with ours, so each runs in an environment of its own. One for which
none is given is left out, by name::

    python -m venv /tmp/nncf && /tmp/nncf/bin/pip install nncf openvino onnx
    python -m venv /tmp/modelopt && /tmp/modelopt/bin/pip install "nvidia-modelopt[onnx]"
"""

from __future__ import annotations

import argparse
import functools
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from riformer_deploy.backends.base import Runtime
from riformer_deploy.backends.onnxruntime import OnnxRuntime
from riformer_deploy.backends.openvino import OpenVinoRuntime
from riformer_deploy.common.enums import RuntimeKind


class _OpenVinoIr(OpenVinoRuntime):
    """OpenVINO's own format, whose weights are in a second file."""

    @override
    def _model(self, content: bytes) -> Any:
        return self._core.read_model(content, self._path.with_suffix(".bin").read_bytes())


def _openvino(path: Path, **options: Any) -> OpenVinoRuntime:
    return (_OpenVinoIr if path.suffix == ".xml" else OpenVinoRuntime)(path, **options)


RUNTIMES: dict[RuntimeKind, tuple[str, Callable[..., Runtime]]] = {
    RuntimeKind.ONNX_RUNTIME: ("ONNX Runtime", OnnxRuntime),
    RuntimeKind.OPENVINO: ("OpenVINO", _openvino),
}
"""What runs a file on a CPU: how it is called, and what opens the file."""

_MOST_S = 150.0
"""For one file of a peer: NNCF's accuracy control may undo one operator after another."""

_MODELOPT = """
import sys
import numpy as np
from modelopt.onnx.quantization import quantize
source, images, output, method = sys.argv[1:]
quantize(source, quantize_mode="int8", calibration_data={"images": np.load(images)},
         calibration_method=method, calibration_eps=["cpu"], output_path=output,
         high_precision_dtype="fp32", log_level="ERROR")
"""

# Calibration images have no labels: for the accuracy control right is what the unquantised model says.
_NNCF = """
import logging, sys
import nncf, numpy as np, onnx, openvino
nncf.set_log_level(logging.ERROR)
source, images, output, mode = sys.argv[1:]
stored = np.load(images)
parts = np.split(stored, len(stored))
plain = nncf.Dataset(parts)

def agreement(model, pairs):
    return float(np.mean([int(model(image)[0].argmax()) == label for image, label in pairs]))

if output.endswith(".onnx"):
    named = nncf.Dataset(parts, lambda part: {"images": part})
    onnx.save(nncf.quantize(onnx.load(source), named, subset_size=len(parts)), output)
else:
    model = openvino.Core().read_model(source)
    if mode == "quantize":
        made = nncf.quantize(model, plain, subset_size=len(parts))
    else:
        exact = openvino.compile_model(model, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
        pairs = [(part, int(exact(part)[0].argmax())) for part in parts]
        made = nncf.quantize_with_accuracy_control(
            model, plain, nncf.Dataset(pairs, lambda pair: pair[0]),
            lambda model, data: (agreement(model, data), None), subset_size=len(parts), max_drop=0.01)
    openvino.save_model(made, output, compress_to_fp16=False)
"""


class Tool(StrEnum):
    """Whose quantisation ours is compared with."""

    ONNX_RUNTIME = "ONNX Runtime"
    MODELOPT = "ModelOpt"
    NNCF = "NNCF"


@dataclass(frozen=True, kw_only=True)
class PeerFile:
    """A file that a peer made.

    Attributes:
        tool: Whose.
        form: What of, as its maker was told.
        path: Where.
        runtimes: What can run it: OpenVINO's own format runs in OpenVINO alone.
    """

    tool: Tool
    form: str
    path: Path
    runtimes: tuple[RuntimeKind, ...] = tuple(RUNTIMES)


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Interpreters that have the peers; None leaves one out.

    Attributes:
        nncf: Has ``nncf``, ``openvino`` and ``onnx``.
        modelopt: Has ``nvidia-modelopt[onnx]``.
    """

    nncf: str | None
    modelopt: str | None

    @property
    def versions(self) -> dict[str, str | None]:
        """Of each that takes part."""
        return {
            "nncf": _version(self.nncf, "nncf"),
            "modelopt": _version(self.modelopt, "nvidia-modelopt"),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The interpreters, as options of a script."""
    parser.add_argument("--nncf", help="a Python interpreter that has nncf, openvino and onnx")
    parser.add_argument("--modelopt", help="a Python interpreter that has nvidia-modelopt[onnx]")


def peers_of(asked: argparse.Namespace) -> Peers:
    """The interpreters that a script was given."""
    return Peers(nncf=asked.nncf, modelopt=asked.modelopt)


def _version(python: str | None, package: str) -> str | None:
    if python is None:
        return None
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    ran = subprocess.run(  # noqa: S603  # an interpreter that the user named
        (python, "-c", code), check=True, capture_output=True, text=True
    )
    return ran.stdout.strip()


def _script(python: str, text: str, source: Path, images: Path, mode: str, output: Path) -> None:
    subprocess.run(  # noqa: S603  # an interpreter that the user named
        (python, "-c", text, str(source), str(images), str(output), mode),
        check=True,
        capture_output=True,
        text=True,
        timeout=_MOST_S,
    )


def _onnxruntime(
    source: Path, images: NDArray[np.float32], method: str, layers: list[str] | None, output: Path
) -> None:
    """``quantize_static`` as ONNX Runtime's documentation sets it for TensorRT."""
    from onnxruntime import quantization  # noqa: PLC0415  # slow to import, and only here
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
        """Sixteen images at a time."""

        def __init__(self) -> None:
            self._parts: Iterator[NDArray[np.float32]] = iter(np.split(images, len(images) // 16))

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


def _attempt(make: Callable[[], object]) -> str | None:
    """Run a peer; why it failed, or None."""
    try:
        make()
    except subprocess.CalledProcessError as err:
        return (str(err.stderr).strip().splitlines() or [f"exit status {err.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        return f"stopped after {_MOST_S:.0f} s"
    except Exception as err:  # noqa: BLE001  # a peer that fails is a finding, whatever it raises
        return f"{type(err).__name__}: {err}"[:300]
    return None


_DEFAULT_METHODS = ("MinMax",)
ALL_METHODS = ("MinMax", "Entropy", "Percentile")


def quantized(
    sources: Mapping[str, Path],
    folder: Path,
    images: NDArray[np.float32],
    peers: Peers,
    methods: tuple[str, ...] = _DEFAULT_METHODS,
    *,
    control: bool = True,
) -> tuple[dict[str, PeerFile], dict[str, str]]:
    """Let every peer quantise every source.

    Args:
        sources: FP32 files with one input ``images`` and any batch, by what they are.
        folder: Where to write.
        images: What to calibrate on, (N, 3, H, W), a multiple of 16.
        peers: The interpreters.
        methods: Of ONNX Runtime; none leaves it and ModelOpt out, and of several ModelOpt takes its
            ``entropy``, too.
        control: Whether NNCF's accuracy control takes part; it takes minutes for a file.

    Returns:
        The files by name, and by name why there is none.
    """
    stored = folder / "images.npy"
    np.save(stored, images)
    todo: dict[str, tuple[PeerFile, Callable[[Path], object] | None]] = {}

    def add(tool: Tool, form: str, how: str, make: Callable[[Path], object] | None, ending: str) -> None:
        path = folder / f"peer{len(todo)}{ending}"
        own = {".xml": (RuntimeKind.OPENVINO,)}.get(ending, tuple(RUNTIMES))
        file = PeerFile(tool=tool, form=form, path=path, runtimes=own)
        todo[f"{tool} {how}, {form}"] = (file, make)

    for form, source in sources.items():
        for method in methods:
            for what, layers in (("default operators", None), ("Conv and Gemm", ["Conv", "Gemm"])):
                make = functools.partial(_onnxruntime, source, images, method, layers)
                add(Tool.ONNX_RUNTIME, form, f"quantize_static {method}, {what}", make, ".onnx")
        for name in ("max", "entropy")[: len(methods)]:
            run = peers.modelopt and functools.partial(
                _script, peers.modelopt, _MODELOPT, source, stored, name
            )
            add(Tool.MODELOPT, form, name, run or None, ".onnx")
        modes = [("quantize", ".xml"), ("quantize", ".onnx")]
        modes += [("accuracy control", ".xml")] if control else []
        for mode, ending in modes:
            run = peers.nncf and functools.partial(_script, peers.nncf, _NNCF, source, stored, mode)
            add(Tool.NNCF, form, f"{mode} as {ending[1:]}", run or None, ending)
    files, failures = {}, {}
    for name, (file, make_it) in todo.items():
        if make_it is None:
            failures[name] = f"not run: no interpreter that has {file.tool} was given"
        elif reason := _attempt(functools.partial(make_it, file.path)):
            failures[name] = reason
        else:
            files[name] = file
    return files, failures
