from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Method, Precision, RuntimeKind
from riformer_deploy.evaluation.metric_records import Decisions, Deviation
from riformer_deploy.evaluation.parity_failures import advice_on, why_failed
from riformer_deploy.evaluation.results import (
    CandidateParity,
    OutputParity,
    ParityResult,
    StageParity,
    Status,
)
from riformer_deploy.evaluation.stored_parity import stored_parity
from riformer_deploy.evaluation.tolerances import TOLERANCES
from tests.candidates import labelled

ENDLESS = Deviation(
    finite=False, max_abs=None, max_relative=None, relative_l2=None, sqnr_db=None, cosine=None,
    elementwise_used=None,
)  # fmt: skip
FAR = Deviation(
    finite=True, max_abs=0.105, max_relative=0.01, relative_l2=5e-3, sqnr_db=46.27, cosine=0.99,
    elementwise_used=12.34,
)  # fmt: skip
NEAR = dataclasses.replace(FAR, sqnr_db=80.0, elementwise_used=0.5)


def _failed(
    precision: Precision,
    output: Deviation,
    *stages: Deviation,
    decided_flips: int = 0,
    block: str | None = None,
) -> CandidateParity:
    choice = Decisions(images=14, top1_agreement=1.0, flips=decided_flips, decided_flips=decided_flips)
    status = Status.PASSED if output is NEAR and not decided_flips else Status.FAILED
    return CandidateParity(
        config=labelled("OpenVINO", RuntimeKind.OPENVINO, precision),
        artifact_sha256="ab",
        tolerance=TOLERANCES[precision],
        outputs=(
            OutputParity(
                name="logits", deviation=output, decisions=choice, tolerance_used=None, status=status
            ),
        ),
        stages=tuple(
            StageParity(stage=index + 1, tensor="t", deviation=stage, status=Status.FAILED)
            for index, stage in enumerate(stages)
        ),
        first_bad_block=block,
        status=Status.FAILED,
        file="model.onnx",
    )


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (_failed(Precision.FP16, FAR), "logits: SQNR 46.2 dB, at least 56 is needed"),
        (
            _failed(Precision.FP32, FAR),
            "logits: |difference| up to 1.05e-01, 12.3 times what 1e-05 + 0.0001 |reference| allows",
        ),
        (_failed(Precision.FP32, ENDLESS), "logits: values that are not finite"),
        (
            _failed(Precision.FP16, NEAR, decided_flips=2),
            "logits: 2 of 14 images change their first class, 0 may by so clear a margin",
        ),
        (
            _failed(Precision.BF16, NEAR, FAR, ENDLESS, block="backbone.network.0.1"),
            "stage 1: relative L2 5.00e-03, at most 0.016 is allowed; stage 2: values that are not finite; "
            "first out at backbone.network.0.1",
        ),
        (
            _failed(Precision.FP16, NEAR, dataclasses.replace(FAR, relative_l2=None)),
            "stage 1: the reference is 0 throughout, and it is not",
        ),
        (
            dataclasses.replace(_failed(Precision.FP16, NEAR), outputs=()),
            "no output to compare",
        ),
    ],
)  # fmt: skip
def test_every_figure_that_is_out_is_named_with_its_limit(candidate: CandidateParity, said: str) -> None:
    assert why_failed(candidate) == f"OpenVINO (model.onnx), {said}"


def test_a_figure_is_never_rounded_to_its_limit() -> None:
    close = dataclasses.replace(FAR, sqnr_db=55.99)
    assert "SQNR 55.9 dB, at least 56" in why_failed(_failed(Precision.FP16, close))


def test_a_candidate_that_ran_plain_does_not_pass_as_a_graph() -> None:
    candidate = dataclasses.replace(
        _failed(Precision.FP16, FAR),
        graph=GraphState.NOT_CAPTURABLE,
        file=None,
        config=labelled("RTX, CUDA graph"),
    )
    assert why_failed(candidate).startswith("RTX, CUDA graph (NOT captured: runs plain), logits: ")


def test_the_advice_fits_what_failed(tiny_bundle: Path) -> None:
    passed = stored_parity(Bundle.open(tiny_bundle))
    assert passed is not None
    assert advice_on(passed) == ()
    onnx = labelled("ONNX Runtime", RuntimeKind.ONNX_RUNTIME, Precision.INT8)
    torch = labelled("PyTorch float32, training form", RuntimeKind.PYTORCH, Precision.FP32)
    int8 = dataclasses.replace(_failed(Precision.INT8, FAR), config=onnx)
    plain = dataclasses.replace(_failed(Precision.FP32, FAR), config=torch)

    def failing(*candidates: CandidateParity) -> ParityResult:
        return dataclasses.replace(passed, candidates=candidates, status=Status.FAILED)

    record = CalibrationRecord(source="random", random=True, images=64, key="", method=Method.MSE)
    lowering = LoweringConfig(precision=Precision.INT8, calibration=record)
    (said,) = advice_on(failing(int8), [lowering])
    assert "int8 was calibrated on random images" in said
    assert "--calibration FOLDER or FILE.npz" in said
    real = dataclasses.replace(lowering, calibration=dataclasses.replace(record, random=False))
    (said,) = advice_on(failing(int8), [real])
    assert said.startswith("parity ran on synthetic images")
    own = dataclasses.replace(failing(int8), inputs=dataclasses.replace(passed.inputs, seed=None))
    assert advice_on(own, [real]) == ()
    said, _ = advice_on(failing(plain, int8))
    assert said.startswith("PyTorch float32, training form, itself misses the tolerance at 64x48 px")
    # a runtime's own verdict is not the file's
    others = _failed(Precision.INT8, FAR)
    assert advice_on(dataclasses.replace(passed, candidates=(*passed.candidates, others))) == ()
