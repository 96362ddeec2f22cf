"""``MODEL_CARD.md``: the report's figures with the metadata block that Hugging Face reads."""

from __future__ import annotations

import json
import re

from riformer_deploy.common.display import displayed
from riformer_deploy.reporting.evidence import Evidence
from riformer_deploy.reporting.html import answers_of, title_of
from riformer_deploy.reporting.summary import choices, lasting_files, not_verified

_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|&~$-])")


def render_model_card(evidence: Evidence) -> str:
    """The model card of a bundle, as Markdown.

    Args:
        evidence: Of a bundle.
    """
    title = title_of(evidence)
    lines = ["---", *_metadata(title, evidence), "---", "", f"# {_escaped(title)}", ""]
    lines += [f"- {_escaped(text)}" for text in answers_of(evidence, choices(evidence))]
    if evidence.accuracy is not None:
        lines += [
            "",
            "## Accuracy",
            "",
            "| artifact | top-1 % | top-5 % | pictures |",
            "|---|---:|---:|---:|",
        ]
        lines += [
            f"| {_escaped(a.name)} | {a.top1.percent:.3f} | {a.top5.percent:.3f} | {a.images} |"
            for a in evidence.accuracy.artifacts
        ]
    if evidence.candidates:
        lines += ["", "## Parity", "", "| candidate | verdict | least SQNR dB |", "|---|---|---:|"]
        for candidate in evidence.candidates:
            values = [o.deviation.sqnr_db for o in candidate.outputs if o.deviation.sqnr_db is not None]
            least = f"{min(values):.1f}" if values else "-"
            lines.append(f"| {_escaped(candidate.name)} | {candidate.status} | {least} |")
    lines += ["", "## Not verified", ""]
    lines += [f"- {_escaped(text)}" for text in not_verified(evidence)] or ["- Nothing is missing."]
    if evidence.manifest is not None:
        lines += ["", "## Files", "", "| file | bytes | sha256 |", "|---|---:|---|"]
        lines += [
            f"| {_escaped(f.path)} | {f.size_bytes} | {f.sha256} |" for f in lasting_files(evidence.manifest)
        ]
    return displayed("\n".join(lines)) + "\n"


def _metadata(title: str, evidence: Evidence) -> list[str]:
    """Hugging Face's model index, as YAML; a text in JSON's quotes is YAML, too."""
    accuracy = evidence.accuracy
    engines = evidence.manifest.engines if evidence.manifest is not None else ()
    lines = [
        "library_name: riformer-deploy",
        "pipeline_tag: image-classification",
        f"tags: [{', '.join(('riformer', 'onnx', *(('tensorrt',) if engines else ())))}]",
    ]
    if accuracy is None:
        return lines
    first = accuracy.artifacts[0]
    return [
        *lines,
        "model-index:",
        f"- name: {json.dumps(title)}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{name: {json.dumps(accuracy.dataset.location)}, type: image-classification}}",
        "    metrics:",
        f"    - {{type: accuracy, name: top-1, value: {first.top1.percent:.3f}}}",
        f"    - {{type: accuracy, name: top-5, value: {first.top5.percent:.3f}}}",
    ]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
