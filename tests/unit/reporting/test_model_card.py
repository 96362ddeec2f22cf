from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.model_card import render_model_card


def test_it_begins_with_hugging_face_s_metadata_and_has_the_report_s_figures(measured_bundle: Path) -> None:
    evidence = read_evidence(measured_bundle)
    text = render_model_card(evidence)
    assert text.startswith("---\nlibrary_name: riformer-deploy\npipeline_tag: image-classification\n")
    assert evidence.accuracy is not None
    share = evidence.accuracy.artifacts[0].top1
    assert f"- {{type: accuracy, name: top-1, value: {share.percent:.3f}}}" in text
    assert "| ONNX Runtime fp32 | passed | " in text
    assert "- Batch 1: ship model.fp32.onnx, run by ONNX Runtime fp32: " in text
    assert "tensorrt" not in text  # it holds no engine
    assert "## Not verified\n\n- Parity was measured on synthetic images, not on pictures.\n" in text


@pytest.mark.parametrize("name", ["a\n---\nlicense: mit", "x | [y](https://example.org) <b>"])
def test_a_name_from_outside_ends_neither_the_metadata_nor_a_row(measured_bundle: Path, name: str) -> None:
    evidence = read_evidence(measured_bundle)
    assert evidence.manifest is not None
    model = dataclasses.replace(evidence.manifest.model, variant=name)
    hostile = dataclasses.replace(evidence, manifest=dataclasses.replace(evidence.manifest, model=model))
    lines = render_model_card(hostile).splitlines()
    assert [number for number, line in enumerate(lines) if line == "---"] == [0, lines.index("---", 1)]
    assert "license: mit" not in lines
    heading = next(line for line in lines if line.startswith("# "))
    assert "](" not in heading
    assert "<" not in heading.replace("\\<", "")
