"""How quickly commands answer, beside importing what runs a graph, and how much memory accuracy takes.

Each command is a process of its own; they take turns with the baseline, so that a ratio compares what ran
under the same load.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from _common import interleaved_s, medians, peak_rss_of, random_state, target, write_result
from PIL import Image

from riformer_deploy.api.export import ExportOptions, export_checkpoint
from riformer_deploy.model.variants import VARIANTS

_ROUNDS = 15
_PICTURES = 64
_HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "PIL")
_BASELINE = "import numpy, PIL, onnxruntime"
_S12 = VARIANTS["riformer-s12_in1k"]


def _make_bundle(folder: Path) -> Path:
    """S12 with random weights: what is loaded, hashed and run is as large as the published one."""
    checkpoint, bundle = folder / "s12.pth", folder / "s12"
    torch.save({"state_dict": random_state(_S12.architecture)}, checkpoint)
    export_checkpoint(ExportOptions(checkpoint=checkpoint, output=bundle, variant=_S12))
    return bundle


def _make_pictures(folder: Path) -> tuple[Path, Path]:
    """One picture, and two batches of labelled ones."""
    pixels = np.random.default_rng(0).integers(0, 256, (_PICTURES, 256, 256, 3), dtype=np.uint8)
    picture, data = folder / "picture.png", folder / "data.npz"
    Image.fromarray(pixels[0]).save(picture)
    np.savez(data, val_images=pixels, val_labels=np.arange(_PICTURES))
    return picture, data


def _imported_by(*arguments: str) -> str:
    """Heavy libraries that a command imports."""
    probe = (
        f"import sys; sys.argv = {['riformer-deploy', *arguments]!r}\n"
        "from riformer_deploy_cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"print([m for m in {_HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(  # noqa: S603  # our own interpreter
        (sys.executable, "-c", probe), check=True, capture_output=True, text=True
    )
    return found.stderr.strip().splitlines()[-1]


def main() -> None:
    """Time the commands beside the baseline, and measure accuracy's memory."""
    python = sys.executable
    command = str(Path(python).with_name("riformer-deploy"))
    # As installed, where modules are compiled once; with it, ours alone would be compiled at every start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _make_bundle(folder)
        picture, data = _make_pictures(folder)
        samples = interleaved_s(
            {
                _BASELINE: (python, "-c", _BASELINE),
                "--help": (command, "--help"),
                "models": (command, "models"),
                "inspect BUNDLE": (command, "inspect", str(bundle)),
                "doctor": (command, "doctor"),
                "predict, one picture": (command, "predict", str(picture), str(bundle)),
            },
            rounds=_ROUNDS,
        )
        accuracy = (command, "verify", "accuracy", str(bundle), "--data", str(data), "--batch", "32")
        _, rss_bytes = peak_rss_of(accuracy)
        imported = {"models": _imported_by("models"), "inspect BUNDLE": _imported_by("inspect", str(bundle))}
    middle = medians(samples)
    limits = {"--help": 1.0, "models": 1.0, "inspect BUNDLE": 1.0, "doctor": 2.0, "predict, one picture": 2.0}
    write_result(
        "startup",
        f"Commands on a bundle of RIFormer-S12 from start to exit, medians of {_ROUNDS} interleaved runs, "
        f"over `python -c '{_BASELINE}'`; largest resident memory of `verify accuracy` with PyTorch and "
        "ONNX Runtime",
        {"samples_s": {k: list(v) for k, v in samples.items()}, "medians_s": dict(middle)},
        {
            **{
                f"{name}, over the baseline": target(middle[name] / middle[_BASELINE], limit)
                for name, limit in limits.items()
            },
            "verify accuracy at batch 32, GiB resident": target(rss_bytes / 2**30, 1.2),
            **{
                f"{name} imports none of {', '.join(_HEAVY)}": {"value": found, "met": found == "[]"}
                for name, found in imported.items()
            },
        },
    )


if __name__ == "__main__":
    main()
