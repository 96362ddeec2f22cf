"""What reports and comparisons are made of: records that prove what they say, of this very bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.common.errors import BundleError
from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.summary import not_proven
from tests.manifests import restate

Report = dict[str, Any]


def _changed(bundle: Path, change: Callable[[Report], object]) -> None:
    report = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))
    change(report)
    restate(bundle, "parity.json", json.dumps(report).encode())


def test_a_verdict_that_does_not_follow_from_its_figures_is_refused(tiny_bundle_copy: Path) -> None:
    def worse(report: Report) -> None:
        for candidate in report["candidates"]:
            for output in candidate["outputs"]:
                output["deviation"].update(max_abs=9.0, relative_l2=0.9, sqnr_db=1.0)

    _changed(tiny_bundle_copy, worse)
    for path in (tiny_bundle_copy, tiny_bundle_copy / "parity.json"):
        with pytest.raises(BundleError, match="contradicts itself"):
            read_evidence(path)


def test_verdicts_on_other_files_and_other_weights_do_not_count(tiny_bundle_copy: Path) -> None:
    own = read_evidence(tiny_bundle_copy)
    assert own.unproven == ()

    def other_graph(report: Report) -> None:
        for candidate in report["candidates"]:
            if candidate["file"] == "model.fp32.onnx":
                candidate["artifact_sha256"] = "0" * 64

    _changed(tiny_bundle_copy, other_graph)
    found = read_evidence(tiny_bundle_copy)
    assert (
        {c.name for c in found.candidates}
        == {c.name for c in own.candidates if c.file != "model.fp32.onnx"}
        != {c.name for c in own.candidates}
    )
    assert "parity.json: it holds no verdict on this model.fp32.onnx." in not_proven(found)
    _changed(tiny_bundle_copy, lambda report: report.update(reference_sha256="0" * 64))
    found = read_evidence(tiny_bundle_copy)
    assert found.parity == ()
    assert "parity.json: it compares with other weights than the bundle's reference." in not_proven(found)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "neither a bundle nor a result: not JSON"),
        (b"\xff\xfe", "neither a bundle nor a result"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'{"kind": "parity", "kind": "latency"}', "kind: given twice"),
        (b"[]", "its kind is None"),
        (b'{"kind": {}}', "its kind is {}"),
        (b'{"kind": "parity"}', "no valid result"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "parity.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"parity\.json .*{why}"):
        read_evidence(tmp_path / "parity.json")


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "zero.json", "absent.json"):
        with pytest.raises(BundleError, match=f"{name} is neither a bundle nor a result"):
            read_evidence(tmp_path / name)
