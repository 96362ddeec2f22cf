"""The report in a real browser, where there is one: ``CHROMIUM`` names it, or it is on the path."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.reporting.evidence import read_evidence
from riformer_deploy.reporting.html import render_html

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
FLAGS = ("--headless", "--no-sandbox", "--no-zygote", "--single-process", "--remote-debugging-pipe")


class Browser:
    """Chromium, asked over its DevTools pipe: JSON that ends in a zero byte, on descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        here_reads, there_writes = os.pipe()
        there_reads, here_writes = os.pipe()
        assert CHROMIUM is not None
        program = f'exec "$0" "$@" 3<&{there_reads} 4>&{there_writes}'
        self._process = subprocess.Popen(  # noqa: S603  # a browser of the machine
            ["/bin/bash", "-c", program, CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(there_reads, there_writes),
            stderr=subprocess.DEVNULL,
        )
        os.close(there_reads)
        os.close(there_writes)
        self._read, self._write = here_reads, here_writes
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command; what comes before it is kept in ``events``."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            self._rest += os.read(self._read, 2**16)
        text, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(text)
        return told

    def value(self, expression: str) -> Any:
        """What an expression of the page is."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


@pytest.mark.untraced
def test_it_renders_sorts_and_prints_without_an_error_or_a_request(
    browser: Browser, measured_bundle: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_html(read_evidence(measured_bundle)), encoding="utf-8")
    for domain in ("Runtime", "Log", "Network", "Page"):
        browser.ask(f"{domain}.enable")
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    browser.ask("Page.navigate", url=page.as_uri())
    while browser.value("document.readyState") != "complete":
        time.sleep(0.05)
    medians = (
        '[...document.querySelectorAll("table")[0].tBodies[0].rows].map(row => +row.cells[3].dataset.key)'
    )
    before = browser.value(medians)
    assert len(before) == 8
    click = 'document.querySelectorAll("th button")[3].click()'
    browser.value(click)
    assert browser.value(medians) == sorted(before)
    browser.value(click)
    assert browser.value(medians) == sorted(before, reverse=True)
    assert browser.value("document.documentElement.scrollWidth") == 390  # nothing sticks out on a phone
    assert browser.value('document.querySelectorAll("svg")[0].getBoundingClientRect().height') > 100
    assert base64.b64decode(browser.ask("Page.printToPDF")["data"]).startswith(b"%PDF")
    said = {event["method"] for event in browser.events}
    assert not said & {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
    asked = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert asked == [page.as_uri()]
