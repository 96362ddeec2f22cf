from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "options.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    cli: Run, file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few rounds are refused by their number, which tells whose they were."""
    path = file("[bench]\nrounds = 1\n")
    said = "rounds must be at least 5 for a median to mean anything, got"
    ran = cli("--config", path, "bench")
    assert ran.returncode == 2
    assert f"{said} 1" in ran.stderr
    assert f"--rounds is 1, from [bench] rounds of {path}." in ran.stderr
    monkeypatch.setenv("RIFORMER_DEPLOY_BENCH_ROUNDS", "2")
    monkeypatch.setenv("RIFORMER_DEPLOY_CONFIG", str(path))
    ran = cli("bench", "-v")
    assert f"{said} 2" in ran.stderr
    assert ran.stderr.startswith("note: --rounds is 2, from RIFORMER_DEPLOY_BENCH_ROUNDS\n")
    ran = cli("bench", "--rounds", "3")
    assert f"{said} 3" in ran.stderr
    assert "RIFORMER_DEPLOY" not in ran.stderr
    monkeypatch.setenv("RIFORMER_DEPLOY_BENCH_ROUNDS", "")  # as if it were not set
    assert f"{said} 1" in cli("bench").stderr


def test_a_file_sets_what_the_command_line_can(
    cli: Run, file: Callable[[str], Path], tiny_bundle: Path
) -> None:
    path = file(
        "[compare]\nmax-slowdown = 5\nmax-drop = 1\njson = true\nacross-machines = false\n"
        '[export]\nprecision = ["fp32", "fp16"]\nimage-size = 224\n'  # another command's do not count
    )
    ran = cli("--config", path, "compare", tiny_bundle, tiny_bundle)
    assert ran.returncode == 1
    gates = [text.split(":")[0] for text in json.loads(ran.stdout)["failures"]]
    assert gates == ["--max-slowdown", "--max-drop"]
    path.write_text('[sensitivity]\nprecision = "fp16"\nequalize = false\n', encoding="utf-8")
    ran = cli("--config", path, "sensitivity", tiny_bundle)
    assert ran.returncode == 2
    assert f"Invalid value for [sensitivity] precision of {path} (--precision): 'fp16' is not" in ran.stderr


def test_everything_that_is_wrong_with_a_file_is_named_at_once(cli: Run, file: Callable[[str], Path]) -> None:
    path = file(
        '[export]\nforc = true\nopset = "x"\nprecision = ["fp32", true]\nimage_size = 224\n'
        "[exprot]\n"
        "[verify]\nwith = true\n[verify.parity]\nrtol = true\n"
        "[bench]\ntorch = 1\nwith = 1979-05-27\n"
        "[doctor]\nhelp = true\n"
    )
    ran = cli("--config", path, "models")  # whichever command is run
    assert (ran.returncode, ran.stdout) == (2, "")
    assert [line.strip() for line in ran.stderr.splitlines() if line.startswith("  - ")] == [
        "- [export] forc: there is no such option. Did you mean force?",
        "- [export] opset: expected an integer, got the string 'x'",
        "- [export] precision: expected a string, or an array of such, got the array ['fp32', True]",
        "- [export] image_size: there is no such option. Did you mean image-size?",
        "- exprot: riformer-deploy has no command of that name. Did you mean export?",
        "- verify.with: verify has no command of that name",
        "- [verify.parity] rtol: expected a number, got true",
        "- [bench] torch: expected true or false, got the number 1",
        "- [bench] with: expected a string, or an array of such, got 1979-05-27 (date)",
        "- [doctor] help: there is no such option",
    ]


def test_a_file_that_is_none_is_refused_and_help_does_not_need_it(
    cli: Run, file: Callable[[str], Path], tmp_path: Path
) -> None:
    for text, said in (
        (None, "cannot be read: No such file"),
        ("[bench\n", "is no TOML: "),
        (f"a = {'[' * 5000}", "is no TOML: "),
        ("bench = 1\n", "bench: expected a table, [bench], got the number 1"),
    ):
        path = tmp_path / "gone.toml" if text is None else file(text)
        ran = cli("--config", path, "bench")
        assert ran.returncode == 2
        assert said in ran.stderr
        assert cli("--config", path, "bench", "--help").returncode == 0
    ran = cli("--config", "/dev/zero", "bench")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "is a device, not a regular file" in ran.stderr


def test_a_file_after_the_command_is_told_where_it_belongs(cli: Run) -> None:
    for line in (("export", "c.pth", "--config", "a.toml"), ("bench", "--config", "a.toml")):
        ran = cli(*line)
        assert ran.returncode == 2
        assert "before the command: riformer-deploy --config" in ran.stderr


@pytest.mark.parametrize(
    ("variable", "value", "line", "said"),
    [
        (
            "RIFORMER_DEPLOY_BENCH_ROUNDS",
            "many",
            ("bench",),
            "Invalid value for RIFORMER_DEPLOY_BENCH_ROUNDS (--rounds)",
        ),
        (
            "RIFORMER_DEPLOY_VERIFY_PARITY_WITH",
            "abacus",
            ("verify", "parity"),
            "--with is abacus, from RIFORMER_DEPLOY_VERIFY_PARITY_WITH.",
        ),
        (
            "RIFORMER_DEPLOY_EXPORT_IMAGE_SIZE",
            "big",
            ("export", "c.pth"),
            "--image-size is big, from RIFORMER_DEPLOY_EXPORT_IMAGE_SIZE.",
        ),
        (
            "RIFORMER_DEPLOY_DEBUG",
            "maybe",
            ("models",),
            "Invalid value for RIFORMER_DEPLOY_DEBUG (--debug)",
        ),
        (
            "RIFORMER_DEPLOY_BENCH_ROUND",
            "5",
            ("models",),
            "RIFORMER_DEPLOY_BENCH_ROUND. Did you mean RIFORMER_DEPLOY_BENCH_ROUNDS?",
        ),
        (
            "RIFORMER_DEPLOY_BENHC_ROUNDS",
            "5",
            ("models",),
            "RIFORMER_DEPLOY_BENHC_ROUNDS. Did you mean RIFORMER_DEPLOY_BENCH_ROUNDS?",
        ),
    ],
)
def test_a_variable_that_cannot_be_honoured_is_named(
    cli: Run,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    line: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tiny_bundle)
    monkeypatch.setenv(variable, value)
    ran = cli(*line)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "--debug and report" not in ran.stderr


def test_variables_hold_flags_lists_and_json_and_those_of_others_do_not_disturb(
    cli: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PORT_8000_TCP", "SERVICE_HOST", "VERSION", "MODELS_HELP"):  # as in a cluster
        monkeypatch.setenv(f"RIFORMER_DEPLOY_{name}", "x")
    assert "RIFORMER_DEPLOY_MODELS_HELP" in cli("models").stderr
    monkeypatch.delenv("RIFORMER_DEPLOY_MODELS_HELP")
    monkeypatch.setenv("RIFORMER_DEPLOY_MODELS_JSON", "1")
    assert len(json.loads(cli("models").stdout)["models"]) == 10
    monkeypatch.setenv("RIFORMER_DEPLOY_SENSITIVITY_JSON", "yes")
    monkeypatch.setenv("RIFORMER_DEPLOY_BUILD_JSON", "yes")
    monkeypatch.setenv("RIFORMER_DEPLOY_BUILD_PROFILE", "1:8:32 4:2:1")
    ran = cli("build", tiny_bundle)
    told = json.loads(ran.stdout)["error"]["message"]
    assert "'4:2:1' is not a profile" in told
    assert "--profile is 1:8:32 4:2:1, from RIFORMER_DEPLOY_BUILD_PROFILE." in told


def test_the_file_of_the_documentation_can_be_used(
    cli: Run, repository: Path, file: Callable[[str], Path]
) -> None:
    page = (repository / "docs" / "command-line.md").read_text(encoding="utf-8")
    path = file(page.split("```toml\n")[1].split("```")[0])
    assert cli("--config", path, "models").returncode == 0
