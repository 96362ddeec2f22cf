from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.common.errors import BundleError
from riformer_deploy.common.serialization import RecordError, dump_json, load_json
from riformer_deploy.evaluation.resume_log import Answers, ResumeLog, answers_fit, joined, key_of


def answers(start: int, usable: tuple[int, ...], broken: tuple[int, ...] = ()) -> Answers:
    return Answers(
        start=start,
        count=len(usable) + len(broken),
        usable=usable,
        predicted=(usable, tuple(number + 1 for number in usable)),
        scores=(tuple(0.5 for _ in usable),) * 2,
        places=(tuple(0 for _ in usable), usable),
        broken={str(number): f"{number} is broken" for number in broken},
    )


FIRST, SECOND, THIRD = answers(0, (0, 2), (1,)), answers(3, (), (3,)), answers(4, (4, 5))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A resume log of the key "k" with three batches."""
    resume_log = ResumeLog(tmp_path / "resume_log", "k")
    for item in (FIRST, SECOND, THIRD):
        resume_log.add(item)
    resume_log.close(finished=False)
    return tmp_path / "resume_log"


def test_what_was_added_is_there_again(path: Path) -> None:
    resume_log = ResumeLog(path, "k")
    assert resume_log.answers == (FIRST, SECOND, THIRD)
    resume_log.close(finished=True)
    assert not path.exists()


def test_another_key_begins_anew(path: Path) -> None:
    resume_log = ResumeLog(path, "other")
    assert resume_log.answers == ()
    resume_log.add(FIRST)
    resume_log.close(finished=False)
    again = ResumeLog(path, "other")
    assert again.answers == (FIRST,)
    again.close(finished=False)


def test_every_cut_keeps_the_whole_lines_before_it_and_can_be_gone_on_with(path: Path) -> None:
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        resume_log = ResumeLog(path, "k")
        whole = max(sum(end <= size for end in ends) - 1, 0)
        assert resume_log.answers == (FIRST, SECOND, THIRD)[:whole]
        for item in (FIRST, SECOND, THIRD)[whole:]:
            resume_log.add(item)
        resume_log.close(finished=False)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], lines[2], lines[3]],  # a batch is missing
        lambda lines: [lines[0], b"\0" * 40 + b"\n", *lines[2:]],
        lambda lines: [lines[0], b"\xff\n", *lines[2:]],
        lambda lines: [lines[0], lines[1].replace(b"[0, 2]", b"[0, 1]", 1), *lines[2:]],
        lambda lines: [re.sub(rb'"scores": .*?\]\], ', b"", line) for line in lines],  # by an older version
    ],
)
def test_nothing_after_a_damaged_line_is_believed(damage: object, path: Path) -> None:
    assert callable(damage)
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    resume_log = ResumeLog(path, "k")
    assert resume_log.answers == ()
    resume_log.close(finished=False)


def test_two_passes_do_not_write_one_resume_log(path: Path) -> None:
    resume_log = ResumeLog(path, "k")
    with pytest.raises(BundleError, match="Another pass"):
        ResumeLog(path, "k")
    resume_log.close(finished=False)
    ResumeLog(path, "k").close(finished=True)


def test_answers_that_leave_pictures_out_are_refused() -> None:
    text = dump_json(FIRST)
    assert load_json(Answers, text) == FIRST
    for old, new in (('"count": 3', '"count": 2'), ('"1": "1 is', '"5": "1 is')):
        assert old in text
        with pytest.raises(RecordError, match="pictures are missing"):
            load_json(Answers, text.replace(old, new))
    for column in ("places", "scores"):
        record = json.loads(text)
        record[column][1].pop()
        with pytest.raises(RecordError, match="answers are missing"):
            load_json(Answers, json.dumps(record))


def test_joined_answers_are_in_order() -> None:
    whole = joined([FIRST, SECOND, THIRD])
    assert (whole.start, whole.count, whole.usable) == (0, 6, (0, 2, 4, 5))
    assert whole.predicted == ((0, 2, 4, 5), (1, 3, 5, 6))
    assert sorted(whole.broken) == ["1", "3"]


def test_the_key_follows_every_part() -> None:
    keys = {key_of({"a": 1, "b": 2}), key_of({"a": 1, "b": 3}), key_of({"a": [1], "b": 2})}
    assert len(keys) == 3
    assert key_of({"b": 2, "a": 1}) in keys


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "dangling link"])
def test_what_would_be_written_elsewhere_is_refused_and_stays_as_it_was(tmp_path: Path, kind: str) -> None:
    outside, log = tmp_path / "outside", tmp_path / "log"
    outside.write_text("the user's own")
    if kind == "link":
        log.symlink_to(outside)
    elif kind == "hard link":
        log.hardlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.symlink_to(tmp_path / "absent")
    with pytest.raises(OSError, match="log"):
        ResumeLog(log, "k")
    assert outside.read_text() == "the user's own"
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "log"}


def test_answers_that_do_not_fit_end_what_is_taken_up(path: Path) -> None:
    resume_log = ResumeLog(path, "k", lambda item: item.start < 4)
    assert resume_log.answers == (FIRST, SECOND)
    resume_log.close(finished=False)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"start": 3, "usable": (3, 4)}, False),  # the data set has four pictures
        ({"predicted": ((5, 1),)}, False),  # one artifact of two
        ({"predicted": ((5, 9), (5, 1))}, False),  # the model has nine classes
        ({"predicted": ((5, -2), (5, 1))}, False),
        ({"places": ((0, 10), (0, 2))}, False),
        ({"places": ((1, 1), (0, 2))}, False),  # its first class is the right one
        ({"places": ((0, 0), (0, 2))}, False),  # its first class is not
        ({"scores": ((0.5, 0.5), (0.5, 0.5))}, False),  # no first class, but a score
        ({"scores": ((1.5, 0), (0.5, 0.5))}, False),
        ({"scores": ((float("nan"), 0), (0.5, 0.5))}, False),
    ],
)
def test_answers_of_another_data_set_or_model_do_not_fit(changes: dict[str, Any], *, fits: bool) -> None:
    plain: dict[str, Any] = {"start": 1, "usable": (1, 2), "predicted": ((5, -1), (5, 1)), "broken": {}}
    plain |= {"count": 2, "places": ((0, 9), (0, 2)), "scores": ((0.5, 0), (0.5, 0.5))} | changes
    if len(plain["predicted"]) == 1:
        plain |= {name: plain[name][:1] for name in ("places", "scores")}
    assert answers_fit(Answers(**plain), labels=[3, 5, 6, 7], classes=9, artifacts=2) is fits


def test_a_pass_that_was_interrupted_before_its_first_answers_leaves_nothing(tmp_path: Path) -> None:
    ResumeLog(tmp_path / "resume_log", "k").close(finished=False)
    assert not list(tmp_path.iterdir())
    path = tmp_path / "resume_log"
    log = ResumeLog(path, "k")
    log.add(FIRST)
    log.close(finished=False)
    ResumeLog(path, "k").close(finished=False)  # it has nothing of its own, but what it found
    log = ResumeLog(path, "k")
    assert log.answers == (FIRST,)
    log.close(finished=True)
