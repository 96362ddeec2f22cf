from __future__ import annotations

import pytest

from riformer_deploy.backends.candidate_config import CandidateConfig
from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.common.enums import CompileMode, Precision, Processor, RuntimeKind
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.model.architecture import Form

TORCH, GPU = RuntimeKind.PYTORCH, Processor.GPU
ENGINE = CandidateConfig(
    runtime=RuntimeKind.TENSORRT,
    precision=Precision.FP8,
    processor=GPU,
    flavor=TensorRTFlavor.TENSORRT_RTX,
    cuda_graph=True,
)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (
            CandidateConfig(runtime=TORCH, precision=Precision.FP32, form=Form.TRAINING),
            "PyTorch float32, training form",
        ),
        (
            CandidateConfig(runtime=TORCH, precision=Precision.FP32, form=Form.FOLDED, compiled=True),
            "PyTorch float32, folded form, torch.compile",
        ),
        (CandidateConfig(runtime=TORCH, precision=Precision.BF16), "PyTorch bf16, lowered"),
        (
            CandidateConfig(runtime=TORCH, precision=Precision.BF16, processor=GPU, form=Form.DEPLOY),
            "PyTorch bfloat16, GPU, eager",
        ),
        (
            CandidateConfig(
                runtime=TORCH,
                precision=Precision.FP16,
                processor=GPU,
                form=Form.FOLDED,
                compiled=True,
                mode=CompileMode.MAX_AUTOTUNE,
                channels_last=True,
                conv_1x1_as_mm=True,
            ),
            "PyTorch float16, GPU, channels last, torch.compile max-autotune with CUDA graphs, "
            "1x1 convolutions as matrix products",
        ),
        (CandidateConfig(runtime=RuntimeKind.OPENVINO, precision=Precision.INT8), "OpenVINO int8"),
        (
            CandidateConfig(runtime=RuntimeKind.ONNX_RUNTIME, precision=Precision.FP16, processor=GPU),
            "ONNX Runtime CUDA fp16",
        ),
        (ENGINE, "TensorRT-RTX fp8, CUDA graph"),
        (CandidateConfig(runtime=TORCH, precision=Precision.FP32, label="as I say"), "as I say"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_is_made_of_the_fields(config: CandidateConfig, name: str) -> None:
    assert config.name == name


def test_what_is_stored_are_the_fields() -> None:
    text = dump_json(ENGINE)
    assert ("name" in text, load_json(CandidateConfig, text)) == (False, ENGINE)
