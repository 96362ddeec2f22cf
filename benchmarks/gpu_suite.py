"""Everything that needs an NVIDIA GPU, the most valuable first, in five minutes.

    PYTHONPATH=. python benchmarks/gpu_suite.py --bundles DIR -o result.json

``DIR`` holds what gpu_bundles.py exported; without ``--bundles`` it is exported beside the first stages,
which needs what exporting needs. What is missing is named in the result and left out, what no longer fits
into ``--minutes`` too. The result is written after every stage. ``--dry-run`` goes through every stage on a
machine without a GPU, with the stand-in for TensorRT in its CPU form: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from _stages import Run
from _suite import Suite
from _targets import targets_of

# Internals: published names, and whether there is a GPU.
from riformer_deploy.model.variants import VARIANTS
from riformer_deploy.system.cuda_driver import query_driver
from tests.fakes.standin.installing import standing_in

_GRACE_S = 25.0
_MAIN = "riformer-s12_in1k"


_EXPORTERS: list[subprocess.Popen[bytes]] = []
"""The one that runs, while it does."""


def _give_up(suite: Suite) -> None:
    """A stage that hangs, or runs far past the deadline, ends the suite; what was found is written."""
    suite.left_out.append("the suite was ended: its last stage ran past the deadline")
    suite.write({"finished": "no: see what was left out"})
    print("ended: past the deadline", file=sys.stderr, flush=True)
    for exporter in _EXPORTERS:
        exporter.kill()
    os._exit(1)


@contextlib.contextmanager
def _bundles(given: Path | None, variants: list[str], *, small: bool) -> Iterator[Path]:
    """The folder of bundles; where none was given, they appear in it while the first stages run."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("gpu_bundles.py")
        workers = max(1, (os.cpu_count() or 1) - 4)  # some cores stay free for what is timed
        command = [sys.executable, str(script), folder, "--workers", str(workers)]
        command += ["--small"] if small else ["--variant", *variants]
        exporter = subprocess.Popen(command)  # noqa: S603  # our own script
        _EXPORTERS.append(exporter)
        try:
            yield Path(folder)
        finally:
            exporter.kill()
            exporter.wait()
            _EXPORTERS.clear()


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundles", type=Path, help="exported bundles, from gpu_bundles.py")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    parser.add_argument("--variants", nargs="+", default=[_MAIN], choices=sorted(VARIANTS), metavar="NAME")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--minutes", type=float, default=5.0, help="no stage begins that would pass this")
    parser.add_argument("--dry-run", action="store_true", help="every stage, on the CPU, for its own sake")
    arguments = parser.parse_args()
    if not arguments.output.resolve().parent.is_dir():
        parser.error(f"there is no folder {arguments.output.resolve().parent}")
    if arguments.bundles is not None and not arguments.bundles.is_dir():
        parser.error(f"there is no folder {arguments.bundles}")
    return arguments


def _measure(arguments: argparse.Namespace, suite: Suite) -> None:
    batches = sorted(set(arguments.batches))
    small = arguments.dry_run
    with (
        tempfile.TemporaryDirectory() as scratch,
        _bundles(arguments.bundles, arguments.variants, small=small) as folder,
    ):
        suite.scratch = Path(scratch)
        variants = ["riformer-digits"] if small else arguments.variants
        Run(
            suite=suite, folder=folder, scratch=Path(scratch), variants=variants, batches=batches,
            awaited=lambda: any(exporter.poll() is None for exporter in _EXPORTERS),
        ).everything()  # fmt: skip
    suite.write(targets_of(suite, (batches[0], batches[-1])))


def main() -> int:
    """Parse the selection, run it, write the result."""
    arguments = _parsed()
    with standing_in("cpu") if arguments.dry_run else contextlib.nullcontext():
        driver = query_driver()
        if not driver.gpus:
            print(f"there is no NVIDIA GPU here: {driver.problem}; nothing was measured", file=sys.stderr)
            return 1
        suite = Suite(
            deadline=time.monotonic() + 60 * arguments.minutes, out=arguments.output, dry=arguments.dry_run
        )
        overdue = threading.Timer(60 * arguments.minutes + _GRACE_S, _give_up, args=(suite,))
        overdue.daemon = True
        overdue.start()
        try:
            _measure(arguments, suite)
        finally:
            overdue.cancel()
        shown = json.loads(suite.out.read_text(encoding="utf-8"))
        print(json.dumps({"targets": shown["targets"], "left_out": shown["left_out"]}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
