from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from riformer_deploy_cli.main import app
from typer.main import get_command

from .snippets import PROGRAM, ROOT, Block, Command, blocks, commands, pages

BLOCKS = [block for page in pages() for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if commands(block)]
QUICK = {"predict", "features", "fuse", "inspect", "models", "doctor", "build", "serve"}
"""Commands that take about a second on the digits; the others have tests of their own in tests/cli."""


def _leaf(arguments: tuple[str, ...]) -> tuple[Any, list[str]]:
    command: Any = get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command, rest


def _words(text: str) -> str:
    """A transcript without what differs from run to run: figures, hashes, and the width of columns."""
    text = re.sub(r"\b[0-9a-f]{16}\b|[0-9][0-9.]*", "#", text)
    return re.sub(r"[\s━─┏┳┓┡╇┩└┴┘]+", " ", text).strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, repository: Path, digits_bundle: Path) -> Path:
    """A folder as the pages assume it: the examples, and the bundle of the quickstart."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(repository / "examples", target_is_directory=True)
    shutil.copytree(digits_bundle, folder / "digits")
    return folder


def _named(found: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in found]


def _quick_commands() -> list[Any]:
    """Each quick command of the pages once, and each transcript of it."""
    shown = [(block, command) for block in SHELL if block.runs for command in commands(block)]
    quick = [(block, command) for block, command in shown if command.arguments[0] in QUICK]
    found: dict[Command, str] = {}
    for block, command in sorted(quick, key=lambda pair: not pair[1].printed):  # transcripts first
        if command.printed or command.arguments not in {other.arguments for other in found}:
            found.setdefault(command, block.place)
    return [
        pytest.param(command, id=f"{place} {' '.join(command.arguments[:2])}")
        for command, place in found.items()
    ]


@pytest.mark.parametrize("block", _named(PYTHON))
@pytest.mark.untraced
def test_a_python_snippet_runs_as_it_is_written(
    block: Block, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not block.runs:
        compile(block.text, block.place, "exec")
        return
    monkeypatch.chdir(checkout)
    exec(compile(block.text, block.place, "exec"), {"__name__": "snippet"})  # noqa: S102  # our own pages


@pytest.mark.parametrize("block", _named(SHELL))
def test_the_command_line_knows_every_option_of_a_page(block: Block) -> None:
    for command in commands(block):
        leaf, rest = _leaf(command.arguments)
        leaf.make_context(PROGRAM, rest)


def test_the_command_line_knows_every_option_of_the_examples_in_its_help() -> None:
    def leaves(command: Any) -> list[Any]:
        inner = getattr(command, "commands", None)
        return [command] if inner is None else [leaf for child in inner.values() for leaf in leaves(child)]

    for command in leaves(get_command(app)):
        line = command.epilog.removeprefix("Example: ")
        (shown,) = commands(Block(place="help", language="sh", lines=(line,), runs=False))
        leaf, rest = _leaf(shown.arguments)
        assert leaf.name == command.name
        leaf.make_context(PROGRAM, rest)


@pytest.mark.parametrize("command", _quick_commands())
@pytest.mark.untraced
def test_a_quick_command_runs_and_prints_what_the_page_shows(
    command: Command, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "tensorrt-rtx" in command.arguments:
        pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("COLUMNS", raising=False)  # pages show what a pipe gets
    capsys.readouterr()
    code = app(list(command.arguments), prog_name=PROGRAM, standalone_mode=False)
    assert not code
    if command.printed:
        assert _words(capsys.readouterr().out) == _words(command.printed)


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in pages()])
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        led = page.parent / path if path else page
        assert led.exists(), target
        assert not anchor or anchor in _anchors(led), target


def test_the_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) < 150
