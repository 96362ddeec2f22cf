from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.backends.graph_state import GraphState
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.lowering_config import CalibrationRecord, LoweringConfig
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import record_file
from riformer_deploy.common.enums import Group, Method, Precision, RuntimeKind
from riformer_deploy.common.errors import BundleError, BundleIntegrityError
from riformer_deploy.common.serialization import dump_json
from riformer_deploy.evaluation.failed_candidates import stored_failure
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


@pytest.mark.usefixtures("noisy_openvino")
def test_a_stored_failure_is_of_this_file_in_this_runtime(tiny_bundle_copy: Path) -> None:
    verify_bundle(tiny_bundle_copy)
    bundle = Bundle.open(tiny_bundle_copy)
    everybody = select_candidates(bundle, [Group.TORCH, Group.ONNX, Group.OPENVINO]).candidates
    failures = {item.name: stored_failure(bundle, item) for item in everybody}
    found = failures.pop("OpenVINO fp32")
    assert found is not None
    assert (found.runtime, found.file) == (RuntimeKind.OPENVINO, "model.fp32.onnx")
    assert set(failures.values()) == {None}
    (openvino,) = select_candidates(bundle, [Group.OPENVINO]).candidates
    assert stored_failure(bundle, dataclasses.replace(openvino, artifact_sha256="of another file")) is None


def test_an_engine_is_looked_up_in_its_own_parity_report(engine_bundle_copy: Path) -> None:
    bundle = Bundle.open(engine_bundle_copy)
    (engine,) = bundle.manifest.engines
    (candidate,) = select_candidates(bundle, [Group.ONNX]).candidates
    candidate = dataclasses.replace(
        candidate, config=labelled("engine", RuntimeKind.TENSORRT), artifact_sha256=engine.file.sha256
    )
    assert stored_failure(bundle, candidate) is None
    models = stored_parity(bundle)
    assert models is not None
    far = dataclasses.replace(FAR, sqnr_db=-20 * math.log10(5e-3), cosine=1.0, elementwise_used=120.0)
    (output,) = _failed(Precision.FP32, far).outputs
    failed = dataclasses.replace(
        _failed(Precision.FP32, far),
        artifact_sha256=engine.file.sha256,
        config=candidate.config,
        outputs=(dataclasses.replace(output, tolerance_used=120.0),),
    )
    result = dataclasses.replace(models, candidates=(failed,), skipped=(), status=Status.FAILED)
    store_result(bundle, engine.parity_kind, result)
    assert stored_failure(Bundle.open(engine_bundle_copy), candidate) == failed


def test_a_parity_that_is_damaged_or_no_record_is_refused(tiny_bundle: Path, tiny_bundle_copy: Path) -> None:
    (tiny_bundle_copy / "parity.json").write_text("{}")
    with pytest.raises(BundleIntegrityError, match="parity"):
        stored_parity(Bundle.open(tiny_bundle_copy))
    manifest = Bundle.open(tiny_bundle_copy).manifest
    record = record_file(tiny_bundle_copy / "parity.json", manifest.weights[0].file.sha256)
    changed = dataclasses.replace(manifest, results={"parity": record})
    (tiny_bundle_copy / MANIFEST).write_text(dump_json(changed), encoding="utf-8")
    with pytest.raises(BundleError, match="is no valid result") as caught:
        stored_parity(Bundle.open(tiny_bundle_copy))
    assert "verify parity" in caught.value.remedy
    assert stored_parity(Bundle.open(tiny_bundle), "parity-user") is None


def test_a_parity_of_an_older_schema_is_refused_by_its_number_and_is_measured_anew(
    tiny_bundle_copy: Path,
) -> None:
    bundle = Bundle.open(tiny_bundle_copy)
    path = tiny_bundle_copy / "parity.json"
    older = json.loads(path.read_text()) | {"schema": 1, "a field of version 1": None}
    path.write_text(json.dumps(older))
    record = record_file(path, bundle.manifest.reference.file.sha256)
    changed = dataclasses.replace(bundle.manifest, results={"parity": record})
    (tiny_bundle_copy / MANIFEST).write_text(dump_json(changed), encoding="utf-8")
    with pytest.raises(BundleError, match=r"is of schema 1; this toolkit reads schema 2\.") as caught:
        stored_parity(Bundle.open(tiny_bundle_copy))
    assert "verify parity" in caught.value.remedy


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
