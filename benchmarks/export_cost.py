"""What an export with its parity report costs: time beside the bare exporter, memory of the largest model."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from _common import interleaved_s, medians, peak_rss_of, random_state, target, write_result

# Internals: the bare exporter is timed beside api's export.
from riformer_deploy.model.variants import VARIANTS

_BARE = """
import sys, torch, onnx, onnxsim
from riformer_deploy.model.architecture import Form
from riformer_deploy.model.network import model_from_state
from riformer_deploy.model.variants import VARIANTS
state = torch.load(sys.argv[1], weights_only=True)["state_dict"]
model = model_from_state(VARIANTS["riformer-s12_in1k"].architecture, Form.TRAINING, state)
program = torch.onnx.export(
    model, (torch.zeros(2, 3, 224, 224),), input_names=["images"], output_names=["logits"],
    opset_version=20, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    external_data=False, verbose=False)
simplified, same = onnxsim.simplify(program.model_proto)
onnx.save(simplified, sys.argv[2])
"""
_BARE_NAME = "torch.onnx.export and onnxsim"
_ROUNDS = 5


def main() -> None:
    """Whole processes are compared, so interpreter start and imports count on both sides."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = {}
        for name in ("riformer-s12_in1k", "riformer-m48_in1k-384"):
            paths[name] = work / f"{name}.pth"
            torch.save({"state_dict": random_state(VARIANTS[name].architecture)}, paths[name])
        command = str(Path(sys.executable).with_name("riformer-deploy"))
        small = str(paths["riformer-s12_in1k"])
        samples = interleaved_s(
            {
                _BARE_NAME: (sys.executable, "-c", _BARE, small, str(work / "bare.onnx")),
                "riformer-deploy export": (
                    command, "export", small, "-o", str(work / "s12"), "--variant", "riformer-s12_in1k",
                ),
            },
            rounds=_ROUNDS,
        )  # fmt: skip
        middle = medians(samples)
        seconds, peak = peak_rss_of(
            (command, "export", str(paths["riformer-m48_in1k-384"]), "-o", str(work / "m48"),
             "--variant", "riformer-m48_in1k-384")
        )  # fmt: skip
    write_result(
        "export_cost",
        f"export of S12 at 224 px beside the bare exporter, {_ROUNDS} interleaved runs of whole processes; "
        "peak resident memory of exporting M48 at 384 px",
        {
            "samples_s": {k: list(v) for k, v in samples.items()},
            "medians_s": dict(middle),
            "m48_384_s": seconds,
            "m48_384_peak_rss_bytes": peak,
        },
        {
            "export with parity report over bare export": target(
                middle["riformer-deploy export"] / middle[_BARE_NAME], 2.5
            ),
            "M48 at 384 px, GB resident": target(peak / 1e9, 3.5),
        },
    )


if __name__ == "__main__":
    main()
