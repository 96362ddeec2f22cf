"""The bundles that the GPU suite measures: the trained digits, and a published model in every form of graph.

    PYTHONPATH=. python benchmarks/gpu_bundles.py OUT [--variant NAME ...] [--small] [--workers N]

``OUT/digits`` holds the trained model in every precision. ``OUT/<variant>.<form>`` holds a published model
with random weights (speed does not depend on their values). Needs what exporting needs (onnxsim, onnxscript);
the suite itself does not, so bundles can be made elsewhere. A bundle that is there already stays as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch
from _common import random_state
from _forms import DEFAULT, DIGITS, FORMS, SMALL, Form, bundle_name

from riformer_deploy.api.export import ExportOptions, changed_tolerances, export_checkpoint

# Internals: default tolerances and published names.
from riformer_deploy.bundle.artifacts import MANIFEST
from riformer_deploy.bundle.lowering_config import LoweringConfig
from riformer_deploy.common.enums import Precision
from riformer_deploy.evaluation.tolerances import TOLERANCES
from riformer_deploy.model.variants import VARIANTS

_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_CALIBRATION = _EXAMPLES / "digits" / "calibration"
_TRAINED = _EXAMPLES / "riformer-digits.pth"


def _export(checkpoint: Path, output: Path, form: Form, *, trained: bool) -> None:
    """Random weights are far from int8's tolerance, so only trained ones are held to the default table."""
    base = Precision.FP16 if Precision.INT8 in form.precisions else None
    report = export_checkpoint(
        ExportOptions(
            checkpoint=checkpoint,
            output=output,
            image_size_px=(64, 64) if trained else None,
            lowerings=tuple(
                LoweringConfig(precision=item, int8_base=base, **form.lowering) for item in form.precisions
            ),
            opset=form.opset,
            calibration=str(_CALIBRATION) if trained else "random",
            tolerances=TOLERANCES if trained else changed_tolerances(min_sqnr_db=5.0, stage_relative_l2=1.0),
        )
    )
    if report.bundle is None:
        raise SystemExit(f"parity of {output.name} failed on the CPU, so there is no bundle")


def _make_one(output: Path, name: str) -> None:
    """In a process of its own: one export takes one core most of the time."""
    variant, _, form = name.partition(".")
    if name == DIGITS or variant == SMALL:
        _export(_TRAINED, output / name, FORMS[form or DEFAULT], trained=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{variant}.pth"
        torch.save({"state_dict": random_state(VARIANTS[variant].architecture)}, checkpoint)
        _export(checkpoint, output / name, FORMS[form], trained=False)


def main() -> int:
    """Export what is missing, several at a time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--variant", nargs="+", default=["riformer-s12_in1k"], choices=sorted(VARIANTS))
    parser.add_argument("--small", action="store_true", help="the digits' model stands for the published one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        _make_one(arguments.output, arguments.one)
        return 0
    variants = [SMALL] if arguments.small else arguments.variant
    names = [DIGITS, *(bundle_name(variant, form) for variant in variants for form in FORMS)]
    missing = [name for name in names if not (arguments.output / name / MANIFEST).exists()]

    def make(name: str) -> int:
        command = [sys.executable, __file__, str(arguments.output), "--one", name]
        ran = subprocess.run(  # noqa: S603  # this script
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if ran.returncode:
            print(f"{name} failed: {ran.stderr[-2000:]}", file=sys.stderr, flush=True)
        return ran.returncode

    with ThreadPoolExecutor(arguments.workers) as pool:
        running = {pool.submit(make, name): name for name in missing}
        failed = [running[done] for done in as_completed(running) if done.result()]
    print(f"{len(missing) - len(failed)} of {len(missing)} bundles made", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
