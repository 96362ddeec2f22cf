"""Ctrl-C and signals that end a command, which only a process of its own can show."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("sent", "step"),
    [
        (signal.SIGTERM, "exporting fp32 to ONNX"),
        (signal.SIGINT, "proving parity"),
        (signal.SIGHUP, "proving parity"),
    ],
)
def test_an_export_that_is_ended_says_by_what_and_leaves_nothing(
    tmp_path: Path, tiny_checkpoint: Path, installed_command: str, sent: signal.Signals, step: str
) -> None:
    process = subprocess.Popen(  # noqa: S603 (the installed command)
        [installed_command, "export", str(tiny_checkpoint), "--image-size", "64x48", "-o", "bundle"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if line.startswith(step):
            assert list((tmp_path / "bundle").glob(".pending-*"))
            process.send_signal(sent)
            break
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 128 + sent, seen + rest
    assert out == ""
    assert "Traceback" not in seen + rest
    assert "interrupted: nothing half-written is left" in rest
    assert rest.endswith(
        f"To begin anew: riformer-deploy export {tiny_checkpoint} --image-size 64x48 -o bundle\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_during_a_build_stops_the_builder_exits_130_and_leaves_the_bundle_as_it_was(
    tmp_path: Path, tiny_bundle: Path, installed_command: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    # so many profiles take a while
    profiles = [part for batch in range(1, 60) for part in ("--profile", str(batch))]
    process = subprocess.Popen(  # noqa: S603 (the installed command)
        [installed_command, "build", str(bundle), "--backend", "tensorrt-rtx", *profiles],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "building model.fp32.onnx\n"
    assert list(bundle.glob(".pending-*"))
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ""), rest
    assert "Traceback" not in rest
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
