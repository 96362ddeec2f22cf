from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
from riformer_deploy_cli import commands
from riformer_deploy_cli.command_list import COMMANDS, SERVE, VERIFY, CommandEntry

LISTED = {**COMMANDS, **VERIFY, **SERVE}


@pytest.mark.parametrize("entry", LISTED.values(), ids=LISTED)
def test_what_the_help_says_is_what_the_function_says(entry: CommandEntry) -> None:
    module = importlib.import_module(f"{commands.__name__}.{entry.module}")
    first = str(inspect.getdoc(getattr(module, entry.function))).split("\n\n")[0]
    assert entry.summary == " ".join(first.split())
    assert entry.example.startswith("riformer-deploy ")


def test_every_module_of_commands_is_listed() -> None:
    found = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert {entry.module for entry in LISTED.values()} == found


def test_a_command_imports_no_other() -> None:
    probe = (
        "import sys; sys.argv = ['riformer-deploy', 'models', '--json']\n"
        "from riformer_deploy_cli.main import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"print([m for m in sys.modules if m.startswith('{commands.__name__}.')], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)  # noqa: S603
    assert found.stderr.strip().splitlines()[-1] == f"['{commands.__name__}.models']"
