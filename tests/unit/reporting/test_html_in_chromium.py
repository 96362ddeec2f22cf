"""The report in a real browser, where there is one: ``CHROMIUM`` names it, or it is on the path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.html import render_html

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


def _run(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--single-process", "--no-zygote")
    return subprocess.run(  # noqa: S603  # a browser of the machine
        [CHROMIUM, *flags, "--enable-logging=stderr", *options, page.as_uri()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_renders_sorts_and_prints_without_an_error_of_the_console(
    measured_bundle: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    click = '<script>document.querySelectorAll("th button")[3].click()</script></body>'
    page.write_text(render_html(read_evidence(measured_bundle)).replace("</body>", click), encoding="utf-8")
    ran = _run(page, "--dump-dom")
    assert "CONSOLE" not in ran.stderr
    first = ran.stdout[ran.stdout.index("<tbody>") : ran.stdout.index("</tbody>")]
    medians = [
        float(re.findall(r'data-key="([0-9.e-]+)"', row)[1])
        for row in first.split("<tr>")
        if "data-key" in row
    ]
    assert len(medians) == 8
    assert medians == sorted(medians)
    assert 'aria-sort="ascending"' in ran.stdout
    pdf = tmp_path / "report.pdf"
    _run(page, f"--print-to-pdf={pdf}")
    assert pdf.read_bytes().startswith(b"%PDF")
