from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest
import typer
from riformer_deploy_cli import output

from riformer_deploy.common.progress import Step


def test_an_error_is_text_on_stderr_alone_unless_json_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_error("SomeError", 31, "line one\nline two", as_json=False)
    assert capsys.readouterr() == ("", "error: line one\nline two\n")
    output.print_error("SomeError", 31, 'pip install "x[gpu]"', as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": {"kind": "SomeError", "exit_code": 31, "message": 'pip install "x[gpu]"'}
    }
    assert err == 'error: pip install "x[gpu]"\n'


def test_data_goes_to_stdout_and_notes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("figures [bold]")
    output.note("assumed [bold]")
    assert capsys.readouterr() == ("figures [bold]\n", "note: assumed [bold]\n")


def test_brackets_and_colons_in_a_table_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(
        "Bundle out[1]", ("what[x]",), [('pip install "riformer-deploy[gpu]"',), ("[red]:smile:[/red]",)]
    )
    out, err = capsys.readouterr()
    for text in ("Bundle out[1]", "what[x]", 'pip install "riformer-deploy[gpu]"', "[red]:smile:[/red]"):
        assert text in out
    assert err == ""


def test_a_piped_table_has_no_escape_codes_and_aligns_marked_columns_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_table("T", ("name", ">count"), [("a", "1"), ("b", "12345")])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert ">count" not in out
    cells = {row.split("│")[1].strip(): row.split("│")[2] for row in out.splitlines() if "│" in row}
    assert cells["a"].endswith("    1 ")
    assert cells["b"].endswith("12345 ")


def test_a_long_cell_is_folded_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "/".join(f"folder{index}" for index in range(40))
    output.print_table("T", ("path", "n"), [(long, "1")])
    out = capsys.readouterr().out
    column = "".join(row.split("│")[1].strip() for row in out.splitlines() if "│" in row)
    assert column == long
    assert max(map(len, out.splitlines())) <= 160


def test_progress_that_is_piped_names_each_step_once(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress() as step:
        for text in (
            "preparing A",
            Step("batch 1", "round 1 of 2"),
            Step("batch 1", "round 2 of 2"),
            Step("batch 8", "round 1 of 2"),
        ):
            step(text)
    assert capsys.readouterr() == ("", "preparing A\nbatch 1\nbatch 8\n")


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [(None, ".2e", "-"), (0.0, ".2e", "0.00e+00"), (1.25e-7, ".2e", "1.25e-07"), (38.94, ".1f", "38.9")],
)
def test_a_missing_figure_is_a_dash_and_a_zero_is_a_zero(value: float | None, form: str, shown: str) -> None:
    assert output.number(value, form) == shown


def test_nothing_that_a_terminal_obeys_is_printed_whoever_wrote_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = "\x1b[2J\u202eexe.gpj\r\x9b1m"
    output.say(bad)
    output.note(bad)
    output.print_error("SomeError", 31, bad, as_json=True)
    output.print_table(bad, ("name",), [(f"{bad}\nsecond",), ("x" * 5000,)])
    with output.progress() as show:
        show(Step(bad, "1 of 2"))
    with pytest.raises(typer.Exit):
        output.exit_for_unusable([bad])
    out, err = capsys.readouterr()
    assert not set(out + err) & {"\x1b", "\u202e", "\r", "\x9b"}
    assert r"\x1b[2J\u202eexe.gpj\r\x9b1m\nsecond" in out
    assert 1000 < out.count("x") < 1200


def test_log_lines_are_printed_harmlessly() -> None:
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "a\x1bb %s", ("\u2066c",), None)
    assert output._LogFormatter("%(levelname)s: %(message)s").format(record) == r"WARNING: a\x1bb \u2066c"


def test_pairs_break_no_word_and_print_what_is_too_wide_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    digest = "ab" * 32
    title = "Bundle " + "/long" * 12
    output.print_pairs(title, [("model", "a few words that are folded between them"), ("sha256", digest)])
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == (title, f"sha256: {digest}")
    assert all(len(line) <= 40 for line in lines[1:-1])
    assert any("a few words" in line for line in lines)
    output.print_pairs("T", [("\x1b[31mname", f"{digest}\x1b[0m\nnext")])
    assert capsys.readouterr().out == f"T\n\\x1b[31mname: {digest}\\x1b[0m\\nnext\n"


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("plain", [False, True], ids=["terminal", "NO_COLOR"])
def test_verdicts_have_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, plain: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1" if plain else "")
    screen = _Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    output.say("Parity: failed: \x1b[2J passed")
    output.print_table("T", ("what", "verdict"), [("failed to open", "passed")])
    shown = screen.getvalue()
    assert re.findall("\x1b\\[(3[12])m(\\w+)", shown) == (
        [] if plain else [("31", "failed"), ("32", "passed")]
    )
    assert r": \x1b[2J passed" in shown
