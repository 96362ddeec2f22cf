"""What the stand-in for TensorRT computes with PyTorch on a GPU is what it computes on the CPU.

How engines of it run, plain and as CUDA graphs, is in ``test_engines_on_gpu.py`` (``-k stand-in``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Precision
from tests.fakes.standin.cases import CASES, Case
from tests.fakes.standin.program import Graph, Program, Scratch, run_once

_RELATIVE_L2 = {Precision.FP32: 1e-5, Precision.FP16: 5e-3, Precision.INT8: 2e-2, Precision.FP8: 2e-2}


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the stand-in computes."""
    return torch.device(request.config.getoption("--stand-in"))


def _on(device: torch.device, content: bytes, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    program = Program(Graph.read(content), device)
    with torch.inference_mode():
        given = {name: value.to(device) for name, value in inputs.items()}
        return [value.cpu() for value in program.run(given, Scratch()).values()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_operator_gives_on_a_gpu_what_it_gives_on_the_cpu(case: Case, device: torch.device) -> None:
    inputs = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    model = case.model()
    for got, expected in zip(_on(device, model, inputs), run_once(model, inputs).values(), strict=True):
        # A quantised value between two levels, and a float16 one, may be rounded either way.
        tolerance = {torch.float16: 2e-3, torch.int8: 1.0, torch.uint8: 1.0}.get(expected.dtype, 1e-5)
        scale = expected.abs().max().item() if expected.is_floating_point() else 1
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("precision", list(_RELATIVE_L2), ids=str)
def test_the_digits_give_on_a_gpu_what_they_give_on_the_cpu(
    digits_on_gpu: Path, digits_inputs: NDArray[np.float32], device: torch.device, precision: Precision
) -> None:
    bundle = Bundle.open(digits_on_gpu)
    artifact = next((item for item in bundle.manifest.onnx if item.precision is precision), None)
    if artifact is None:
        pytest.skip(f"the bundle holds no {precision} model")
    content = bundle.path_of(artifact.file).read_bytes()
    images = {artifact.inputs[0].name: torch.from_numpy(digits_inputs[:32])}
    (got,), (expected,) = _on(device, content, images), run_once(content, images).values()
    error = torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected)
    assert error < _RELATIVE_L2[precision]
    assert torch.equal(got.argmax(1), expected.argmax(1))
