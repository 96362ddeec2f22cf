"""``riformer-deploy doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import options, output


def doctor(
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Import the slow packages, too: a broken one shows only then."),
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
        ("what", "for", "state", "version", "detail"),
        [(f.name, f.needed_for, str(f.health), f.version or "-", f.detail) for f in report.findings],
    )
    for finding in report.findings:  # below the table, where no column breaks a command that people copy
        if finding.remedy:
            output.say(f"{finding.name}: {finding.remedy}")
    output.next_step("export", "CKPT")
