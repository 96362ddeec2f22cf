from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from riformer_deploy_cli.tables.serve import print_check

from riformer_deploy.common.enums import Precision
from riformer_deploy.evaluation.latency_summary import summarize
from riformer_deploy.evaluation.results import Status
from riformer_deploy.evaluation.tensor_comparison import compare_outputs
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.serving.check_results import ServeCheck, ServedLoad, TransportCheck
from riformer_deploy.serving.triton_client import Transport


def test_figures_problems_and_notes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logits = np.array([[1.0, 2.0]])
    tolerance = TOLERANCES[Precision.INT8]
    over_http = TransportCheck(
        transport=Transport.HTTP,
        outputs=compare_outputs({"logits": logits}, {"logits": logits + 0.01}, tolerance),
        pictures=(),
        problems=("label '1:1:x', expected the name 'y'",),
        loads=(
            ServedLoad(concurrency=4, requests=8, images_per_s=640.4, summary=summarize(np.full(8, 6.25), 1)),
        ),
        status=Status.FAILED,
    )
    result = ServeCheck(
        created_utc="2026-01-01T00:00:00+00:00",
        url="http://host:8000",
        bundle="digits",
        artifact="model.int8.onnx",
        artifact_sha256="a" * 64,
        precision=Precision.INT8,
        tolerance=tolerance,
        transports=(over_http, dataclasses.replace(over_http, transport=Transport.GRPC, problems=())),
        largest_batch_run=4,
        notes=("pictures were not compared",),
        status=Status.FAILED,
    )
    print_check(result)
    printed = capsys.readouterr()
    assert "model.int8.onnx at http://host:8000: failed" in printed.out
    assert "6.25" in printed.out
    assert "640" in printed.out
    for text in ("http: label '1:1:x'", "pictures were not compared", "the server has run is 4"):
        assert text in printed.err
