from __future__ import annotations

import shutil
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from riformer_deploy.model.variants import VARIANTS

Run = Callable[..., CompletedProcess[str]]

VARIABLE = "_RIFORMER_DEPLOY_COMPLETE"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("riformer-deploy re", ["reparameterize", "report", "reproduce"]),
        ("riformer-deploy verify ", ["parity", "accuracy"]),
        ("riformer-deploy export riformer-s12", ["riformer-s12_in1k", "riformer-s12_in1k-384"]),
        ("riformer-deploy export ckpt", []),  # the shell's own: files
        ("riformer-deploy download ", list(VARIANTS)),
        ("riformer-deploy export x.pth --variant riformer-m48_in1k-", ["riformer-m48_in1k-384"]),
        ("riformer-deploy export x.pth --precision fp32,f", ["fp32,fp16", "fp32,fp8"]),
        ("riformer-deploy bench --with ", ["torch", "onnx", "openvino", "engine"]),
        ("riformer-deploy verify accuracy --with torch,o", ["torch,onnx", "torch,openvino"]),
        ("riformer-deploy bench --baselines s", ["strong"]),
        ("riformer-deploy export x.pth --norm", ["--norm-form", "--norm-io", "--norm2"]),
    ],
)
def test_a_shell_is_offered_what_fits(
    cli: Run, monkeypatch: pytest.MonkeyPatch, line: str, offered: list[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    monkeypatch.setenv("RIFORMER_DEPLOY_BENCH_ROUNDS", "many")  # what is wrong elsewhere does not matter
    ran = cli()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split() == offered


def test_bash_itself_completes_with_the_script_that_the_command_gives(
    shell: Run, installed_command: str
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    program = f"""
eval "$(env {VARIABLE}=source_bash {installed_command})"
COMP_WORDS=(riformer-deploy export x.pth --precision int8,fp3)
COMP_CWORD=4
_riformer_deploy_completion {installed_command}
echo "${{COMPREPLY[@]}}"
complete -p riformer-deploy
"""
    ran = shell(bash, "--norc", "-c", program)
    assert ran.stdout.splitlines() == [
        "int8,fp32",
        "complete -o default -F _riformer_deploy_completion riformer-deploy",
    ]
