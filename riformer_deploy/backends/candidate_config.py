"""What sets a candidate apart from the others of a measurement, and what it is called for it."""

from __future__ import annotations

from dataclasses import dataclass

from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.common.enums import CompileMode, Precision, Processor, RuntimeKind
from riformer_deploy.model.architecture import Form

_DTYPES = {Precision.FP32: "float32", Precision.FP16: "float16", Precision.BF16: "bfloat16"}
_TITLES = {
    RuntimeKind.PYTORCH: "PyTorch",
    RuntimeKind.ONNX_RUNTIME: "ONNX Runtime",
    RuntimeKind.OPENVINO: "OpenVINO",
    RuntimeKind.TENSORRT: "TensorRT",
}


def runtime_title(runtime: RuntimeKind) -> str:
    """What tables and messages call a runtime."""
    return _TITLES[runtime]


@dataclass(frozen=True, kw_only=True)
class CandidateConfig:
    """What is run, by what, in which precision, and how it is launched.

    Attributes:
        runtime: What runs it.
        precision: What it computes in.
        processor: Where it runs.
        form: The form of the weights, for PyTorch; None for graphs, engines, and modules that were lowered.
        compiled: Whether ``torch.compile`` made it; on a CPU with its defaults.
        mode: How hard PyTorch's compiler tries, where it compiles for a GPU.
        channels_last: Whether PyTorch keeps activations in NHWC memory.
        conv_1x1_as_mm: Whether PyTorch computes 1x1 convolutions as matrix products.
        flavor: The flavor of TensorRT, of an engine.
        cuda_graph: Whether an engine is to be launched as a CUDA graph.
        label: What it is called instead, where a measurement has candidates that the other fields do not
            tell apart, such as those of a benchmark.
    """

    runtime: RuntimeKind
    precision: Precision
    processor: Processor = Processor.CPU
    form: Form | None = None
    compiled: bool = False
    mode: CompileMode | None = None
    channels_last: bool = False
    conv_1x1_as_mm: bool = False
    flavor: TensorRTFlavor | None = None
    cuda_graph: bool = False
    label: str | None = None

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        if self.label is not None:
            return self.label
        if self.runtime is RuntimeKind.PYTORCH:
            return self._pytorch_name()
        if self.flavor is not None:
            return f"{self.flavor.label} {self.precision}" + (", CUDA graph" if self.cuda_graph else "")
        on_gpu = " CUDA" if self.processor is Processor.GPU else ""
        return f"{runtime_title(self.runtime)}{on_gpu} {self.precision}"

    def _pytorch_name(self) -> str:
        if self.processor is Processor.CPU and self.form is None:
            return f"PyTorch {self.precision}, lowered"
        parts = [f"PyTorch {_DTYPES[self.precision]}"]
        if self.processor is Processor.CPU:
            parts.append(f"{self.form} form")
            parts += ["torch.compile"] if self.compiled else []
            return ", ".join(parts)
        parts.append("GPU")
        parts += ["channels last"] if self.channels_last else []
        parts.append("eager" if self.mode is None else f"torch.compile {self.mode} with CUDA graphs")
        parts += ["1x1 convolutions as matrix products"] if self.conv_1x1_as_mm else []
        return ", ".join(parts)
