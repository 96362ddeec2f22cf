from __future__ import annotations

import logging
import re
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Annotated, Any

import pytest
import typer
from riformer_deploy_cli import main, output, settings
from riformer_deploy_cli.command import App, Group
from typer.main import get_command

Run = Callable[..., CompletedProcess[str]]


def _commands(command: Any = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    command = command or get_command(main.app)
    if not hasattr(command, "commands"):
        return {path: command}
    return {
        name: leaf
        for word, child in command.commands.items()
        for name, leaf in _commands(child, (*path, word)).items()
    }


def _shown(text: str) -> set[str]:
    """Long names of the options that a help page lists."""
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE))


def test_help_shows_the_usual_options_in_groups_and_the_rest_on_a_second_page(cli: Run) -> None:
    first, second = cli("export", "--help").stdout, cli("export", "--help-all").stdout
    groups = ["Options:", "Checkpoint:", "Graph:", "Quantization:", "General:"]
    assert [line for line in first.splitlines() if line in groups] == groups
    assert [line for line in second.splitlines() if line in groups] == groups
    assert max(map(len, (first + second).splitlines())) <= 80
    usual, everything = _shown(first), _shown(second)
    assert {"--output", "--precision", "--calibration", "--json", "--quiet", "--help-all"} <= usual
    assert not usual & {"--norm2", "--rtol", "--key", "--mirror"}
    assert {"--norm2", "--rtol", "--key", "--mirror"} <= everything
    assert f"{len(everything - usual)} more options: riformer-deploy export --help-all" in first
    assert "more options" not in second
    assert "RIFORMER_DEPLOY_EXPORT_<OPTION>" in first


def test_every_option_of_every_command_is_shown_and_can_be_set_elsewhere(cli: Run) -> None:
    for path, command in _commands().items():
        shown = _shown(cli(*path, "--help-all").stdout)
        keys = settings.settable(command)
        assert {f"--{key}" for key in keys} <= shown, path
        assert {"quiet", "verbose", "debug", "json"} <= set(keys), path
        assert not {"help", "help-all"} & set(keys), path
        assert len(settings.variables(command, path)) == len(keys), path


def test_a_command_with_few_options_shows_them_in_one_list(cli: Run) -> None:
    text = cli("fuse", "--help").stdout
    assert {"--output", "--key", "--json", "--quiet"} <= _shown(text)
    assert "Checkpoint:" not in text
    assert "--help-all" not in text


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Makes a function the command ``work`` of the command line, registering nothing else for it."""

    def register(work: Callable[..., None]) -> None:
        app = App(cls=Group, rich_markup_mode=None)
        app.callback()(main._root)
        app.command("work")(work)
        monkeypatch.setattr(main, "app", app)

    return register


def test_quiet_leaves_the_result_and_verbose_says_more(
    cli: Run, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        output.note("a note")
        with output.progress() as step:
            step("working")
        logger = logging.getLogger("riformer_deploy.test")
        logger.warning("a warning")
        logger.info("a detail")
        logging.getLogger("onnx_ir.passes").info("what another package notes")
        output.say("the result")
        output.next_step("bench")

    command(work)
    quiet, normal, verbose = "", "note: a note\nworking\nNext: riformer-deploy bench\n", "working: 0.0 s\n"
    for line, told, logged in (
        (("work",), normal, ["a warning"]),
        (("work", "-q"), quiet, []),
        (("--quiet", "work"), quiet, []),
        (("work", "--verbose"), verbose, ["a warning", "a detail"]),
        (("-v", "work"), verbose, ["a warning", "a detail"]),
    ):
        caplog.clear()
        ran = cli(*line)
        assert (ran.returncode, ran.stdout) == (0, "the result\n")
        assert ran.stderr == told or told in ran.stderr, line
        assert (ran.stderr == "") == (told == ""), line
        assert caplog.messages == logged, line
    assert "exclude each other" in cli("work", "-q", "-v").stderr
    monkeypatch.setenv("RIFORMER_DEPLOY_WORK_QUIET", "1")
    assert cli("work").stderr == ""
    assert "a note" in cli("work", "-v").stderr  # the command line goes first


def test_a_verbose_option_of_its_own_stays_the_command_s_and_means_the_same(
    cli: Run, command: Callable[..., None]
) -> None:
    def work(
        *, verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Counts too.")] = False
    ) -> None:
        output.say(f"{verbose} {output.is_verbose()}")

    command(work)
    assert cli("work", "-v").stdout == "True True\n"
    assert cli("work").stdout == "False False\n"
    assert cli("work", "--help").stdout.count("--verbose") == 1


@pytest.mark.parametrize("kept", ["", "5 of 9 pictures are done"])
def test_an_interruption_says_what_is_kept_and_the_command_that_goes_on(
    cli: Run, command: Callable[..., None], kept: str
) -> None:
    def work(name: Annotated[str, typer.Option()] = "") -> None:
        interruption = KeyboardInterrupt(name)
        if kept:
            interruption.add_note(kept)
        raise interruption

    command(work)
    ran = cli("work", "-q", "--name", "a b")
    assert (ran.returncode, ran.stdout) == (130, "")
    assert ran.stderr.splitlines() == (
        [f"interrupted: {kept}", "To go on: riformer-deploy work -q --name 'a b'"]
        if kept
        else [
            "interrupted: nothing half-written is left, and files from before are as they were",
            "To begin anew: riformer-deploy work -q --name 'a b'",
        ]
    )
