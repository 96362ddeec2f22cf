"""The stand-in's operators are ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from riformer_deploy.bundle.store import Bundle
from tests.fakes.standin.cases import CASES, Case
from tests.fakes.standin.nodes import OPERATORS
from tests.fakes.standin.program import Graph, Program, Scratch, run_once

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra cpu)")
_TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float16): 1e-3}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_operator_gives_what_onnx_runtime_gives(case: Case) -> None:
    model = case.model()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(case.inputs))
    given = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    found = run_once(model, given)
    assert list(found) == [output.name for output in session.get_outputs()]
    for got, true in zip(found.values(), expected, strict=True):
        array = got.numpy()
        assert (array.dtype, array.shape) == (true.dtype, true.shape)
        if tolerance := _TOLERANCE.get(true.dtype):
            np.testing.assert_allclose(array, true, rtol=tolerance, atol=tolerance * np.abs(true).max())
        else:
            np.testing.assert_array_equal(array, true)


def _without_data(model: bytes, inputs: dict[str, torch.Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    """Shapes and types of the outputs, by a device whose values nobody can read."""
    program = Program(Graph.read(model), torch.device("meta"))
    with torch.inference_mode():
        given = {name: value.to("meta") for name, value in inputs.items()}
        return [(value.shape, value.dtype) for value in program.run(given, Scratch()).values()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_operator_reads_what_is_on_the_device(case: Case) -> None:
    """Or it would wait for a GPU, which no capture allows; nor does any mix host and device."""
    inputs = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    expected = run_once(case.model(), inputs).values()
    assert _without_data(case.model(), inputs) == [(value.shape, value.dtype) for value in expected]


def test_no_export_reads_what_is_on_the_device(precise_bundle: Path) -> None:
    bundle = Bundle.open(precise_bundle)
    assert len(bundle.manifest.onnx) == 3
    for artifact in bundle.manifest.onnx:
        model = bundle.path_of(artifact.file).read_bytes()
        found = _without_data(model, {"images": torch.zeros(5, 3, 64, 64)})
        assert found == [((5, 10), torch.float32)]


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "Gelu", lambda _node, value: value * value.max().item())
    case = CASES["gelu"]
    with pytest.raises(RuntimeError, match="meta"):
        _without_data(case.model(), {"x": torch.from_numpy(case.inputs["x"])})


def test_every_operator_of_the_cases_is_known() -> None:
    assert {case.op for case in CASES.values()} <= OPERATORS.keys()


def test_bfloat16_is_computed_in() -> None:
    """ONNX Runtime has no such kernels on a CPU; PyTorch's own casts are the measure."""
    case = CASES["cast to half"]
    onnx_bfloat16 = 16
    model = Case(op="Cast", inputs=case.inputs, order=case.order, attributes={"to": onnx_bfloat16}).model()
    (found,) = run_once(model, {"x": torch.from_numpy(case.inputs["x"])}).values()
    assert torch.equal(found, torch.from_numpy(case.inputs["x"]).bfloat16())


def test_an_operator_that_is_not_known_is_found_by_its_node() -> None:
    graph = Graph.read(Case(op="Cos", inputs={"x": np.ones((2, 3), np.float32)}, order=["x"]).model())
    (finding,) = graph.findings()
    assert (finding.index, finding.node, finding.op) == (0, "tested", "Cos")
    assert "Cos" in finding.problem
