"""The code blocks of the project's pages."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "docs" / "reference"
PROGRAM = "riformer-deploy"
_MARK = re.compile(r"<!-- not run: \S.* -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        place: Page and line of its fence, as ``docs/predict.md:6``.
        language: What stands behind the fence.
        lines: Its text.
        runs: False where a comment above the fence says that it is not run, and why.
    """

    place: str
    language: str
    lines: tuple[str, ...]
    runs: bool

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A line of ours in a block for the shell.

    Attributes:
        arguments: What stands behind ``riformer-deploy``.
        printed: What the page shows below it, in a transcript.
    """

    arguments: tuple[str, ...]
    printed: str


def pages() -> list[Path]:
    """Every page that is written by hand."""
    found = [*ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(page for page in found if page.parent != GENERATED)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = next((text for text in reversed(lines[:start]) if text.strip()), "")
        place = f"{page.relative_to(ROOT)}:{start + 1}"
        inside = tuple(lines[start + 1 : number])
        language = lines[start].removeprefix("```")
        found.append(Block(place=place, language=language, lines=inside, runs=not _MARK.fullmatch(above)))
        start = None
    assert start is None, f"{page}: a block does not end"
    return found


def commands(block: Block) -> list[Command]:
    """Our commands in a block: each line of ``sh``, each line behind ``$`` of ``console``."""
    prompt = {"sh": "", "console": "$ "}.get(block.language)
    found: list[tuple[str, list[str]]] = []
    if prompt is None:
        return []
    continued = False
    for line in block.lines:
        if continued:
            found[-1] = (found[-1][0] + line, [])
        elif line.startswith(prompt):
            found.append((line.removeprefix(prompt), []))
        else:
            found[-1][1].append(line)
        continued = found[-1][0].endswith("\\") and not found[-1][1]
        if continued:
            found[-1] = (found[-1][0].removesuffix("\\"), [])
    split = [(shlex.split(line, comments=True), printed) for line, printed in found]
    return [
        Command(arguments=tuple(words[1:]), printed="\n".join(printed))
        for words, printed in split
        if words[:1] == [PROGRAM]
    ]
