"""Parity reports that were changed after they were measured, in a bundle whose hashes are right."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.api.inspect import BundleInspection, inspect_file
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import dump_json, load_json
from riformer_deploy.evaluation.evidence import contradictions, not_verified
from riformer_deploy.evaluation.results import ParityResult
from riformer_deploy.evaluation.stored_parity import stored_parity
from tests.manifests import restate

Report = dict[str, Any]
Change = Callable[[Report], object]


@pytest.fixture(name="report")
def fixture_report(tiny_bundle: Path) -> Report:
    loaded: Report = json.loads((tiny_bundle / "parity.json").read_text(encoding="utf-8"))
    return loaded


def _result(report: Report) -> ParityResult:
    return load_json(ParityResult, json.dumps(report))


def _onnx(report: Report) -> Report:
    found: Report = next(c for c in report["candidates"] if c["config"]["runtime"] == "onnxruntime")
    return found


def _output(report: Report) -> Report:
    found: Report = _onnx(report)["outputs"][0]
    return found


def _distance(report: Report) -> Report:
    found: Report = _output(report)["deviation"]
    return found


def test_a_report_as_it_was_measured_contradicts_nothing_and_proves_the_bundle(
    tiny_bundle: Path, report: Report
) -> None:
    assert contradictions(_result(report)) == ()
    assert not_verified(Bundle.open(tiny_bundle).manifest, _result(report)) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: _distance(r).update(elementwise_used=1234.5), "its figures say 1234.5"),
        (
            lambda r: (_distance(r).update(elementwise_used=9.5), _output(r).update(tolerance_used=9.5)),
            "logits: passed does not follow",
        ),
        (lambda r: _distance(r).update(max_abs=9.9, max_relative=0.99), "its largest difference alone is"),
        (lambda r: _distance(r).update(cosine=-0.2), "its cosine is -0.2"),
        (lambda r: _distance(r).update(sqnr_db=200.0), "SQNR 200.0 dB"),
        (lambda r: _distance(r).update(relative_l2=-1e-7), "no distance"),
        (lambda r: _distance(r).update(finite=False), "not finite"),
        (lambda r: _output(r).update(status="failed"), "failed does not follow"),
        (lambda r: _output(r)["decisions"].update(decided_flips=3, flips=3), "an agreement of 1.0, 3 of"),
        (lambda r: _output(r)["decisions"].update(decided_flips=3), "images compared of"),
        (lambda r: _output(r)["decisions"].update(images=0), "0 images compared"),
        (lambda r: _onnx(r)["stages"][1]["deviation"].update(relative_l2=0.5), "stage 2: passed does not"),
        (lambda r: _onnx(r).update(outputs=[]), "passed does not follow from its outputs"),
        (lambda r: r["inputs"].update(batches=[]), "measured on no images"),
    ],
)  # fmt: skip
def test_figures_and_verdicts_that_do_not_follow_are_refused_by_candidate(
    tiny_bundle_copy: Path, report: Report, change: Change, said: str
) -> None:
    change(report)
    assert said in "; ".join(contradictions(_result(report)))
    restate(tiny_bundle_copy, "parity.json", json.dumps(report).encode())
    with pytest.raises(BundleError, match="contradicts itself") as caught:
        stored_parity(Bundle.open(tiny_bundle_copy))
    assert "verify parity" in caught.value.remedy
    found = inspect_file(tiny_bundle_copy)
    assert isinstance(found, BundleInspection)
    assert (found.intact, found.parity) == (False, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(reference_sha256="f" * 64), "other weights than the bundle's reference"),
        (lambda r: r["inputs"].update(image_size_px=[64, 64]), "not of the model's size"),
        (lambda r: _onnx(r).update(artifact_sha256="f" * 64), "no verdict on this model.fp32.onnx"),
        (lambda r: _onnx(r).update(artifact_sha256="f" * 64), "ONNX Runtime fp32 ran another file"),
        (lambda r: _onnx(r).update(file="deploy.pth"), "no verdict on this model.fp32.onnx"),
        (lambda r: r["candidates"].remove(_onnx(r)), "no verdict on this model.fp32.onnx"),
        (lambda r: _onnx(r)["config"].update(runtime="pytorch"), "no verdict on this model.fp32.onnx"),
        (lambda r: _onnx(r)["tolerance"].update(stage_relative_l2=1e300), "other limits than the default"),
    ],
)  # fmt: skip
def test_a_report_of_something_else_is_not_proof(
    tiny_bundle_copy: Path, report: Report, change: Change, said: str
) -> None:
    change(report)
    restate(tiny_bundle_copy, "parity.json", dump_json(_result(report)).encode())
    assert said in "; ".join(not_verified(Bundle.open(tiny_bundle_copy).manifest, _result(report)))
    found = inspect_file(tiny_bundle_copy)
    assert isinstance(found, BundleInspection)
    assert (found.parity, found.parity_utc, found.intact) == (None, None, True)
    assert said in "; ".join(found.parity_not_verified)


def test_limits_that_no_default_has_prove_nothing_whatever_they_are_called(
    tiny_bundle_copy: Path, report: Report
) -> None:
    endless = copy.deepcopy(report)
    for candidate in endless["candidates"]:
        candidate["tolerance"] |= {"rtol": 1e300, "atol": 1e300, "stated": "default"}
        for output in candidate["outputs"]:
            output["deviation"]["elementwise_used"] = output["tolerance_used"] = 0.0
    result = _result(endless)
    assert any("limits" in text for text in not_verified(Bundle.open(tiny_bundle_copy).manifest, result))
