from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.bundle.store import Bundle

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
Run = Callable[..., CompletedProcess[str]]


@pytest.mark.untraced
def test_the_report_and_the_card_are_files_of_the_bundle(cli: Run, tiny_bundle_copy: Path) -> None:
    ran = cli("report", tiny_bundle_copy)
    assert ran.returncode == 0, ran.stderr
    html = tiny_bundle_copy / "report.html"
    assert ran.stdout.startswith(f"{html}: ")
    assert ran.stderr == f"Next: riformer-deploy compare {tiny_bundle_copy} OTHER_BUNDLE --max-slowdown 5%\n"
    bundle = Bundle.open(tiny_bundle_copy)
    assert {"report.html", "MODEL_CARD.md", "parity"} == set(bundle.manifest.results)
    assert bundle.path_of(bundle.manifest.results["report.html"]) == html
    assert cli("report", tiny_bundle_copy).returncode == 0  # the last one is replaced


def test_a_file_elsewhere_is_not_replaced_unasked(cli: Run, tiny_bundle_copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    ran = cli("report", tiny_bundle_copy, "-o", target, "--json")
    assert json.loads(ran.stdout) == {
        "html": str(target),
        "size_bytes": target.stat().st_size,
        "model_card": str(tiny_bundle_copy / "MODEL_CARD.md"),
    }
    ran = cli("report", tiny_bundle_copy, "-o", target)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "exists already" in ran.stderr
    assert cli("report", tiny_bundle_copy, "-o", target, "--force").returncode == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--data", "gone"), 2, "gone is no folder of pictures and no .npz file"),
        (("--sensitivity", "gone.json"), 2, "is not what `riformer-deploy sensitivity --json` prints"),
        (("--sensitivity", "/dev/zero"), 2, "is a device, not a regular file"),
        (("-o", "/dev/null/r.html"), 2, "cannot be written"),
    ],
)
def test_what_cannot_be_shown_or_written_is_refused(
    cli: Run, tiny_bundle_copy: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = cli("report", tiny_bundle_copy, *options)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
