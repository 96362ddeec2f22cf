"""Commands as a person has them before them: on a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import Terminal


def test_an_export_shows_one_line_that_changes_and_ctrl_c_says_how_to_go_on(
    tmp_path: Path, tiny_checkpoint: Path, installed_command: str
) -> None:
    line = [installed_command, "export", str(tiny_checkpoint), "--image-size", "64x48", "-o", "bundle"]
    terminal = Terminal(line, tmp_path)
    terminal.wait_for("exporting fp32 to ONNX")
    terminal.type("\x03")
    assert terminal.finish() == 130
    assert "loading the checkpoint\n" not in terminal.plain  # it gave way to the next step
    assert terminal.plain.rstrip().splitlines()[-2:] == [
        "interrupted: nothing half-written is left, and files from before are as they were",
        f"To begin anew: riformer-deploy {' '.join(line[1:])}",
    ]
    assert list(tmp_path.iterdir()) == []


def test_tables_fit_and_break_no_name_that_people_copy(tmp_path: Path, installed_command: str) -> None:
    terminal = Terminal([installed_command, "doctor", "-q"], tmp_path)
    assert terminal.finish() == 0
    rows = terminal.plain.splitlines()
    assert max(len(row) for row in rows if row[:1] in "┏┡│└") <= 80
    assert "\x1b[32mok" in terminal.output  # green
    assert "pip install" not in "".join(row for row in rows if row.startswith("│"))
    for name in ("CPUExecutionProvider", "onnxscript", "NVIDIA driver", "TensorRT-RTX"):
        assert any(name in row for row in rows if row.startswith("│")), name
