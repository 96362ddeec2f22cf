from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from riformer_deploy.common.enums import NormForm, Precision
from riformer_deploy.evaluation.results import Status
from riformer_deploy.quantization.search import search
from riformer_deploy.reporting.evidence import Evidence
from riformer_deploy.reporting.html import render_html
from riformer_deploy.reporting.plots import tuning_plot
from riformer_deploy.reporting.sections import tuning_section
from tests.judges import Figures, Known, task, tuned

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
pytest.importorskip("jinja2", reason="Jinja2 is not installed (extra report)")


def test_a_search_is_plotted_and_every_trial_has_a_row() -> None:
    ms = {Precision.INT8: 5.0, Precision.FP32: 10.0}
    form = {NormForm.GROUP: 0.8}
    result = tuned(search(task(), Known(lambda c: ms.get(c.precision, 11.0) * form.get(c.norm, 1.0))))
    plot = tuning_plot(result)
    assert plot is not None
    for text in ("the answer", "best trade-offs", "times as fast as plain fp32", "better in its precision"):
        assert text in plot
    section = tuning_section(result, plot)
    assert len(section.rows) == len(result.trace.trials)
    assert "is proven to be faster than every plain form" in section.text
    page = render_html(Evidence(path=Path("bundle"), tuning=(result,)))
    assert "Search of the fastest form in OpenVINO" in page
    assert page.count("<svg") == 1


def test_a_search_of_one_trial_has_no_plot_and_a_failed_answer_says_so() -> None:
    result = tuned(search(task(max_seconds=1.0), Figures(1)), status=Status.FAILED)
    assert len(result.trace.trials) == 1
    assert tuning_plot(result) is None
    text = tuning_section(result, None).text
    assert "the answer failed parity" in text
    assert "the time was over" in text
    passed = dataclasses.replace(result, status=Status.PASSED)
    assert "no tuned form was confirmed to be faster" in tuning_section(passed, None).text
