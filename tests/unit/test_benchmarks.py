"""The page of figures shows what the result files hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_page_of_figures_is_up_to_date(repository: Path) -> None:
    script = repository / "benchmarks" / "render.py"
    ran = subprocess.run([sys.executable, script, "--check"], check=False)  # noqa: S603  # our own script
    assert ran.returncode == 0, "run python benchmarks/render.py"


def test_every_target_that_is_missed_is_shown_as_missed(repository: Path) -> None:
    page = (repository / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (repository / "benchmarks" / "results").glob("*.json"):
        for name, target in json.loads(path.read_text(encoding="utf-8"))["targets"].items():
            if isinstance(target, dict):
                row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
                assert row.endswith("| yes |" if target["met"] else "| NO |")
