from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.backends.candidates import select_candidates
from riformer_deploy.bundle.results import store_result
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group, Precision, RuntimeKind
from riformer_deploy.evaluation.failed_candidates import stored_failure
from riformer_deploy.evaluation.metric_records import Decisions, Deviation
from riformer_deploy.evaluation.results import CandidateParity, OutputParity, Status
from riformer_deploy.evaluation.stored_parity import stored_parity
from riformer_deploy.evaluation.tolerances import TOLERANCES
from tests.candidates import labelled


@pytest.mark.usefixtures("noisy_openvino")
@pytest.mark.untraced
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
    far = Deviation(
        finite=True, max_abs=0.105, max_relative=0.01, relative_l2=5e-3, sqnr_db=-20 * math.log10(5e-3),
        cosine=1.0, elementwise_used=120.0,
    )  # fmt: skip
    output = OutputParity(
        name="logits",
        deviation=far,
        decisions=Decisions(images=14, top1_agreement=1.0, flips=0, decided_flips=0),
        tolerance_used=120.0,
        status=Status.FAILED,
    )
    failed = CandidateParity(
        config=candidate.config,
        artifact_sha256=engine.file.sha256,
        tolerance=TOLERANCES[Precision.FP32],
        outputs=(output,),
        stages=(),
        first_bad_block=None,
        status=Status.FAILED,
        file="model.onnx",
    )
    result = dataclasses.replace(models, candidates=(failed,), skipped=(), status=Status.FAILED)
    store_result(bundle, engine.parity_kind, result)
    assert stored_failure(Bundle.open(engine_bundle_copy), candidate) == failed
