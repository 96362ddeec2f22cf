from __future__ import annotations

import errno
import io
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from riformer_deploy_cli import main
from riformer_deploy_cli.main import _unwinding_on_signals

import riformer_deploy
from riformer_deploy.api import models

Run = Callable[..., CompletedProcess[str]]

COMMANDS = (
    ("export",),
    ("fuse",),
    ("reparameterize",),
    ("test",),
    ("verify", "parity"),
    ("bench",),
    ("sensitivity",),
    ("inspect",),
    ("models",),
    ("doctor",),
)
HEAVY = ("torch", "onnxruntime", "onnx", "numpy")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_tells_every_option_and_shows_an_example_of_the_command(
    cli: Run, command: tuple[str, ...]
) -> None:
    ran = cli(*command, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"Example: riformer-deploy {' '.join(command)}" in ran.stdout
    assert "--json" in ran.stdout
    assert "--debug" in ran.stdout


def test_the_root_help_lists_every_command_and_an_example(cli: Run) -> None:
    ran = cli("--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Example: riformer-deploy run" in ran.stdout
    listed = {line.split()[0] for line in ran.stdout.splitlines() if line.startswith("  ") and line.split()}
    assert {command[0] for command in COMMANDS} <= listed


@pytest.mark.parametrize("arguments", [(), ("verify",)], ids=["riformer-deploy", "verify"])
def test_a_bare_command_prints_its_help_and_is_a_wrong_command_line(
    cli: Run, arguments: tuple[str, ...]
) -> None:
    ran = cli(*arguments)
    assert ran.returncode == 2
    assert "Commands:" in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("exprot", "ckpt.pth"),
        ("export",),
        ("models", "--jsno"),
        ("bench", "--rounds", "many"),
        ("fuse", "a.pth"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_2_with_the_reason_on_stderr_only(
    cli: Run, arguments: tuple[str, ...]
) -> None:
    ran = cli(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage: riformer-deploy" in ran.stderr
    assert "Error: " in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--json"),
        ("export", "c.pth", "--image-size", "abc", "--json"),
        ("bench", "--rounds", "many", "--json"),
        ("models", "--jsno", "--json"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_with_json_is_one_json_object_too(cli: Run, arguments: tuple[str, ...]) -> None:
    ran = cli(*arguments)
    assert ran.returncode == 2
    told = json.loads(ran.stdout)["error"]
    assert set(told) == {"kind", "exit_code", "message"}
    assert told["exit_code"] == 2
    assert told["message"]


@pytest.mark.parametrize("command", [("verify", "parity"), ("bench",)], ids=" ".join)
def test_the_bundle_that_may_be_left_away_is_shown_in_one_pair_of_brackets(
    cli: Run, command: tuple[str, ...]
) -> None:
    usage = cli(*command, "--help").stdout.splitlines()[0]
    assert usage.endswith(" [OPTIONS] [BUNDLE]")


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_terminal_that_does_not_know_a_character_is_no_internal_error(
    cli: Run, monkeypatch: pytest.MonkeyPatch, write_checkpoint: Callable[..., Path], options: tuple[str, ...]
) -> None:
    names = [f"třída {index}" for index in range(7)]
    path = write_checkpoint(meta={"dataset_meta": {"classes": names}})
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding="latin-1"))
    ran = cli("inspect", path, *options)
    sys.stdout.flush()
    shown = screen.getvalue().decode("latin-1")
    assert "internal error" not in ran.stderr
    assert ran.returncode == 0
    if options:
        assert json.loads(shown)["class_names"] == names
    else:
        assert "custom architecture" in shown


def _broken(_: object = None) -> None:
    raise ZeroDivisionError("a defect of ours")


def test_a_defect_is_an_internal_error_70_without_a_traceback(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "published_models", _broken)
    ran = cli("models")
    assert (ran.returncode, ran.stdout) == (70, "")
    assert ran.stderr.startswith("error: internal error, ZeroDivisionError: a defect of ours\n")
    assert "--debug" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b cannot be used: Permission denied."),
        (OSError(errno.EFBIG, "File too large", "a", None, "b"), "b cannot be used: File too large."),
        (OSError(errno.ENOSPC, "No space left on device"), "The system refused what was asked for: No space"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: x"),
            "There is not enough memory: Default",
        ),
        (
            MemoryError("Unable to allocate 44.7 TiB"),
            "There is not enough memory: Unable to allocate 44.7 TiB.",
        ),
    ],
)
def test_what_the_system_refuses_is_no_defect(
    cli: Run, monkeypatch: pytest.MonkeyPatch, refusal: Exception, said: str
) -> None:
    def refused() -> None:
        raise refusal

    monkeypatch.setattr(models, "published_models", refused)
    ran = cli("models")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: {said}")


def test_a_defect_with_json_and_debug_is_one_object_on_stdout_and_a_traceback_on_stderr(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "published_models", _broken)
    ran = cli("models", "--json", "--debug")
    told = json.loads(ran.stdout)["error"]
    assert (told["kind"], told["exit_code"], ran.returncode) == ("InternalError", 70, 70)
    assert "ZeroDivisionError: a defect of ours" in told["message"]
    assert "Traceback (most recent call last)" in ran.stderr
    assert "in _broken" in ran.stderr


@pytest.mark.parametrize("line", [("--debug", "inspect"), ("inspect", "--debug")], ids=" ".join)
def test_debug_before_or_after_the_command_shows_the_traceback(
    cli: Run, tmp_path: Path, line: tuple[str, str]
) -> None:
    ran = cli(*line, tmp_path / "absent.pth")
    assert ran.returncode == 10
    assert "Traceback (most recent call last)" in ran.stderr
    assert f"error: There is no file {tmp_path / 'absent.pth'}" in ran.stderr
    assert logging.getLogger().level == logging.DEBUG


def test_without_debug_an_error_is_a_message_and_no_traceback(cli: Run, tmp_path: Path) -> None:
    ran = cli("inspect", tmp_path / "absent.pth")
    assert (ran.returncode, ran.stdout) == (10, "")
    assert ran.stderr.startswith("error: ")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("line", [("-h",), ("verify", "-h"), ("verify", "parity", "-h")], ids=" ".join)
def test_help_has_a_short_name(cli: Run, line: tuple[str, ...]) -> None:
    ran = cli(*line)
    assert (ran.returncode, ran.stdout) == (0, cli(*line[:-1], "--help").stdout)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Value error, 'fp31' is not one of 'fp32'.", "'fp31' is not one of 'fp32'."),
        (
            "Input should be a valid integer, unable to parse string as an integer",
            "it must be a valid integer",
        ),
        ("'x' is not a valid float.", "'x' is not a valid float."),
    ],
)
def test_a_usage_error_has_no_words_of_a_validator(message: str, said: str) -> None:
    assert main._plain(message) == said


def test_a_name_that_is_none_suggests_the_nearest_and_a_file_of_that_name_goes_first(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cli("export", "riformer-s13_in1k", "-o", tmp_path / "out")
    assert ran.returncode == 2
    assert (
        "There is no published RIFormer called 'riformer-s13_in1k'. Did you mean riformer-s12_in1k?"
        in ran.stderr
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s13").write_bytes(b"")
    assert cli("export", "s13").returncode == 10


def test_version_is_the_package_s_by_either_way_of_starting(shell: Run, installed_command: str) -> None:
    for line in (
        (installed_command,),
        *((sys.executable, "-m", name) for name in ("riformer_deploy", "riformer_deploy_cli")),
    ):
        ran = shell(*line, "--version")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == f"riformer-deploy {riformer_deploy.__version__}\n"


def test_the_installed_command_keeps_data_and_messages_apart(shell: Run, installed_command: str) -> None:
    ran = shell(installed_command, "inspect", "absent.pth", "--json")
    assert ran.returncode == 10
    told = json.loads(ran.stdout)["error"]
    assert (told["kind"], told["exit_code"]) == ("CheckpointUnreadableError", 10)
    assert ran.stderr == f"error: {told['message']}\n"


def test_help_imports_neither_torch_nor_onnx_nor_numpy(shell: Run) -> None:
    program = f"""
import sys
from riformer_deploy_cli.main import run
for command in {[[], *map(list, COMMANDS)]!r}:
    sys.argv = ["riformer-deploy", *command, "--help"]
    try:
        run()
    except SystemExit as end:
        assert not end.code, command
print("HEAVY", sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    ran = shell(sys.executable, "-c", program)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Example: riformer-deploy") == 1 + len(COMMANDS)
    assert ran.stdout.endswith("HEAVY []\n")


class _Failing(io.TextIOBase):
    """A standard output that fails as a closed pipe or a full disk does."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def write(self, _text: str) -> int:
        raise self._error

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_closed_pipe_ends_quietly_as_by_its_signal(
    cli: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdout", _Failing(BrokenPipeError(32, "Broken pipe")))
    ran = cli("models", *options)
    assert (ran.returncode, ran.stderr) == (141, "")


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_full_or_closed_standard_output_is_one_message(
    cli: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdout", _Failing(OSError(28, "No space left on device")))
    full = cli("models", *options)
    assert full.returncode == 2
    assert full.stderr == "error: standard output cannot be written: [Errno 28] No space left on device\n"
    monkeypatch.setattr(sys, "stdout", None)
    closed = cli("models", *options)
    assert (closed.returncode, closed.stderr.count("error: ")) == (2, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")
@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("serve", "--help"), ("models",)], ids=str
)
def test_a_full_disk_behind_standard_output_is_one_message_whoever_writes(
    cli: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w", encoding="utf-8") as full:
        patch.setattr(sys, "stdout", full)
        ran = cli(*arguments)
    assert ran.returncode == 2
    assert ran.stderr == "error: standard output cannot be written: [Errno 28] No space left on device\n"


def test_a_wrong_command_line_with_json_is_told_once(cli: Run) -> None:
    assert cli("models", "--jsno", "--json").stderr.lower().count("no such option") == 1


def test_signals_are_as_found_afterwards_and_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with _unwinding_on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
