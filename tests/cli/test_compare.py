from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


def test_a_bundle_compared_with_itself_passes_and_a_gate_without_figures_fails(
    cli: Run, tiny_bundle: Path
) -> None:
    ran = cli("compare", tiny_bundle, tiny_bundle)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("Comparison: passed\n")
    assert ran.stderr == f"Next: riformer-deploy report {tiny_bundle}\n"
    ran = cli("compare", tiny_bundle, tiny_bundle, "--max-slowdown", "5%", "--json")
    assert (ran.returncode, ran.stderr) == (1, "")
    told = json.loads(ran.stdout)
    assert told["failures"] == ["--max-slowdown: there are no latencies to compare"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("gone", "gone"), 30, "gone is neither a bundle nor a result"),
        (("BUNDLE", "BUNDLE", "--max-slowdown", "much"), 2, "'much' is not a percentage; say 5%"),
        (("BUNDLE", "BUNDLE", "--max-drop", "-1"), 2, "--max-drop must be a finite number of at least 0"),
        (("BUNDLE",), 2, "Missing argument 'B'"),
    ],
)
def test_what_cannot_be_compared_has_its_exit_code(
    cli: Run, tiny_bundle: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = cli("compare", *(tiny_bundle if item == "BUNDLE" else item for item in arguments))
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
