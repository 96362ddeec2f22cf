from __future__ import annotations

import dataclasses
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.common.errors import OptionError
from riformer_deploy.quantization.sensitivity import Cost, LayerCost, SensitivityReport
from riformer_deploy.reporting.evidence import Evidence, read_evidence
from riformer_deploy.reporting.html import render_html
from riformer_deploy.reporting.model_card import render_model_card
from riformer_deploy.reporting.summary import mistakes
from tests.unit.reporting.conftest import HOSTILE

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
pytest.importorskip("jinja2", reason="Jinja2 is not installed (extra report)")

VOID = {"meta", "img", "br"}
ATTACK = "</title><img src=https://example.org/x onerror=alert(1)>"


class Page(HTMLParser):
    """Keeps what a page is made of, and sees that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href", "action", "data"}]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture(scope="module")
def evidence(measured_bundle: Path) -> Evidence:
    return read_evidence(measured_bundle)


@pytest.fixture(scope="module")
def html(evidence: Evidence, measured_pictures: Path) -> str:
    cost = Cost(sqnr_db=30.0, drop_points=1.0)
    layers = (LayerCost(layer="backbone.$x$<b>", cost=cost),)
    report = SensitivityReport(images=3, calibration="noise", everything=cost, layers=layers)
    return render_html(evidence, data=measured_pictures, sensitivity=report)


def test_it_is_one_well_formed_file_that_asks_nothing_of_anybody(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert len(html.encode()) < 1_500_000
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    bare = re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    assert "http" not in bare.replace("http-equiv", "")
    assert "default-src 'none'" in html


def test_it_holds_every_part_the_answer_first(html: str) -> None:
    page = Page(html)
    assert page.headings == [
        "Answer", "Not verified", "Latency", "Accuracy against latency", "Accuracy", "Parity by stage",
        "Sensitivity of layers", "Accuracy by class", "Most confident mistakes", "Provenance", "Files",
    ]  # fmt: skip
    assert page.tags.count("svg") == 4
    assert 0 < page.tags.count("img") <= 24
    assert re.search(
        r"Batch 1: ship model\.fp32\.onnx, run by ONNX Runtime fp32: [0-9.]+ ms per call, ", html
    )
    assert "Parity was measured on synthetic images, not on pictures." in html


def test_names_from_outside_are_text_and_never_markup(html: str, evidence: Evidence) -> None:
    assert HOSTILE.partition("/")[0] not in html
    assert "&lt;script&gt;alert(" in html
    assert "backbone.$x$&lt;b&gt;" in html
    assert evidence.manifest is not None
    model = dataclasses.replace(evidence.manifest.model, class_names=(ATTACK,) * 7, variant=ATTACK)
    hostile = dataclasses.replace(evidence, manifest=dataclasses.replace(evidence.manifest, model=model))
    page = Page(render_html(hostile))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags


def test_what_is_not_visible_in_a_name_is_spelled_out(evidence: Evidence) -> None:
    assert evidence.manifest is not None
    source = dataclasses.replace(evidence.manifest.source, file_name="a\x1b[31m\u202eb\udcff.pth")
    odd = dataclasses.replace(evidence, manifest=dataclasses.replace(evidence.manifest, source=source))
    for text in (render_html(odd), render_model_card(odd)):
        text.encode("utf-8")
        assert not {"\x1b", "\u202e", "\udcff"}.intersection(text)


@pytest.mark.untraced
def test_the_same_records_give_the_same_page(evidence: Evidence) -> None:
    assert render_html(evidence) == render_html(evidence)


def test_a_bundle_without_measurements_says_so(tiny_bundle: Path) -> None:
    html = render_html(read_evidence(tiny_bundle))
    for text in ("nothing is chosen", "Accuracy was not measured", "Latency was not measured."):
        assert text in html
    assert Page(html).open == []


def test_a_bundle_does_not_choose_which_pictures_of_the_machine_are_shown(
    evidence: Evidence, measured_pictures: Path, tmp_path: Path
) -> None:
    inside = Path(shutil.copytree(measured_pictures, tmp_path / "inside"))
    answers = tuple(
        dataclasses.replace(answer, picture=f"../{measured_pictures}/{answer.picture}")
        for answer in evidence.answers
    )
    outside = dataclasses.replace(evidence, answers=answers)
    assert "img" not in Page(render_html(outside, data=inside)).tags


def test_pictures_of_an_array_file_are_shown_where_it_is_the_one_that_was_measured(
    tiny_bundle_copy: Path, tmp_path: Path
) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    data = tmp_path / "noise.npz"
    np.savez(
        data, val_images=rng.integers(0, 256, (9, 70, 60, 3), dtype=np.uint8), val_labels=np.arange(9) % 7
    )
    accuracy_bundle(tiny_bundle_copy, AccuracyOptions(data=data, groups=(Group.ONNX,)))
    evidence = read_evidence(tiny_bundle_copy)
    wrong = mistakes(evidence)
    html = render_html(evidence, data=data.rename(tmp_path / "renamed.npz"))
    assert Page(html).tags.count("img") == len(wrong) > 0
    assert f"{wrong[0].picture}: is class {wrong[0].label}, was taken for class " in html
    other = tmp_path / "other.npz"
    np.savez(other, val_images=np.zeros((9, 70, 60, 3), np.uint8), val_labels=np.arange(9) % 7)
    with pytest.raises(OptionError, match="is not what accuracy was measured on"):
        render_html(evidence, data=other)


@pytest.mark.untraced
def test_the_page_stays_small_whatever_names_are_long(evidence: Evidence, measured_pictures: Path) -> None:
    assert evidence.accuracy is not None
    long = tuple(
        dataclasses.replace(
            answer, picture=f"{number}/" + "x" * 4000, right=dict.fromkeys(answer.right, False)
        )
        for number, answer in enumerate(evidence.answers * 20)
    )
    html = render_html(dataclasses.replace(evidence, answers=long), data=measured_pictures)
    assert len(html.encode()) < 1_500_000
