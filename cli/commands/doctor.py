"""``riformer-deploy doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options, output

if TYPE_CHECKING:
    from riformer_deploy.api.doctor import UserFolder


def doctor(
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Import every package: a broken one shows only then."),
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what this machine can do, and the command that installs what is missing."""
    from riformer_deploy.api.doctor import examine

    report = examine(thorough=thorough)
    if json:
        output.print_json(report)
        return
    machine = report.machine
    memory = f", {machine.memory_bytes / 2**30:.0f} GiB" if machine.memory_bytes else ""
    output.say(f"{machine.cpu}, {machine.cores} cores{memory}, {machine.system}, Python {machine.python}")
    output.print_table(
        "This machine",
        ("!what", "!state", "version", "for"),
        [
            (
                f.name,
                str(f.health),
                f.version or "-",
                f"{f.needed_for} ({f.detail})" if f.detail else f.needed_for,
            )
            for f in report.findings
        ],
    )
    for finding in report.findings:  # below the table, where no column breaks a command that people copy
        if finding.remedy:
            output.say(f"{finding.name}: {finding.remedy}")
    _say_folders(report.folders)
    for runtime, state in report.telemetry.items():
        output.say(f"Reports of use by {runtime}: {state}")
    output.next_step("export", "CKPT")


def _say_folders(folders: Sequence[UserFolder]) -> None:
    """Paths on lines of their own, to be copied; those that are not there only with ``-v``."""
    shown = [folder for folder in folders if folder.exists or output.is_verbose()]
    missing = len(folders) - len(shown)
    output.say("Folders outside a bundle" + (f" ({missing} more with -v):" if missing else ":"))
    for folder in shown:
        there = "" if folder.exists else "; not there"
        output.say(f"  {folder.path}\n    {folder.holds}\n    {folder.variable} moves it{there}")
