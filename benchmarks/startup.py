"""How quickly ``riformer-deploy --help`` answers, and that it imports no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from _common import interleaved_s, medians, target, write_result

_HEAVY = ("torch", "onnxruntime", "onnx", "numpy")


def main() -> None:
    """Time the command beside a bare interpreter and beside importing Typer."""
    python = sys.executable
    command = str(Path(python).with_name("riformer-deploy"))
    samples = interleaved_s(
        {
            "python -c pass": (python, "-c", "pass"),
            "import typer": (python, "-c", "import typer"),
            "riformer-deploy --help": (command, "--help"),
        },
        rounds=20,
    )
    middle = medians(samples)
    bare, typer, shown = middle["python -c pass"], middle["import typer"], middle["riformer-deploy --help"]
    probe = (
        "import sys; sys.argv = ['riformer-deploy', '--help']\n"
        "from riformer_deploy_cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"print([m for m in {_HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(  # noqa: S603  # our own interpreter
        (python, "-c", probe), check=True, capture_output=True, text=True
    )
    imported = found.stderr.strip().splitlines()[-1]
    write_result(
        "startup",
        "riformer-deploy --help, seconds, 20 interleaved runs each",
        {
            "samples_s": {k: list(v) for k, v in samples.items()},
            "medians_s": dict(middle),
            "heavy_imports": imported,
        },
        {
            "help over (python -c pass + typer's import)": target(shown / typer, 3),
            "help less typer's import, over python -c pass": target((shown - (typer - bare)) / bare, 3),
            "no heavy import": {"value": imported, "met": imported == "[]"},
        },
    )


if __name__ == "__main__":
    main()
