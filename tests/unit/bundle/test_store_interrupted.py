"""Kill safety: whatever moment a writer dies at, the bundle is the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.bundle.writing import staging
from tests.manifests import write_bundle

ROOT = Path(__file__).resolve().parents[3]
OLD = {"a.bin": "old a", "dropped.bin": "old d", "kept.bin": "kept", "z.bin": "old z"}
NEW = {"a.bin": "new a", "added.bin": "new b", "kept.bin": "kept", "z.bin": "new z"}
NEXT = {"a.bin": "next a", "b.bin": "next b"}


def write_new(directory: Path) -> None:
    records = {record.path: record for record in Bundle.open(directory).manifest.files}
    changed = {name: text for name, text in NEW.items() if name != "kept.bin"}
    write_bundle(directory, changed, records["kept.bin"])


def contents_of(directory: Path) -> dict[str, str]:
    bundle = Bundle.open(directory)
    return {record.path: bundle.path_of(record).read_text() for record in bundle.manifest.files}


def visible(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".pending-")}


def tree_of(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def read_only_contents_of(directory: Path) -> dict[str, str]:
    before = tree_of(directory)
    contents = contents_of(directory)
    assert tree_of(directory) == before
    return contents


def finish(directory: Path) -> None:
    """What every writer does first."""
    with staging(directory):
        pass


def watch(monkeypatch: pytest.MonkeyPatch, step: Callable[[], None]) -> None:
    """Call ``step`` before and after everything that changes the disk."""

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            step()
            value = real(*args, **kwargs)
            step()
            return value

        return operation

    for name in ("rename", "replace", "rmdir", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    monkeypatch.setattr(Path, "write_text", watched(Path.write_text))
    monkeypatch.setattr(os, "fsync", watched(lambda _: None))


def signalled_at(count: int) -> Callable[[], None]:
    """Ctrl-C at one step, as the system delivers it."""
    left = iter(range(count, -1, -1))

    def step() -> None:
        if next(left, None) == 0:
            os.kill(os.getpid(), signal.SIGINT)

    return step


def interrupted_at(count: int) -> Callable[[], None]:
    left = iter(range(count))

    def step() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return step


def test_an_interruption_at_any_step_leaves_the_old_or_the_new_bundle(tmp_path: Path) -> None:
    found: list[dict[str, str]] = []
    for count in range(1000):
        directory = tmp_path / str(count)
        write_bundle(directory, OLD)
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, interrupted_at(count))
            try:
                write_new(directory)
                completed = True
            except KeyboardInterrupt:
                completed = False
        found.append(read_only_contents_of(directory))
        assert found[-1] in (OLD, NEW), f"after {count} steps"
        finish(directory)
        assert contents_of(directory) == found[-1]
        assert visible(directory) == {*found[-1], "bundle.json"}, f"after {count} steps"
        write_bundle(directory, NEXT)
        assert contents_of(directory) == NEXT
        if completed:
            break
    switched = found.index(NEW)
    assert found == [OLD] * switched + [NEW] * (len(found) - switched)
    assert switched >= 10  # so many steps were really interrupted on either side of the one that counts
    assert len(found) - switched >= 10


def test_ctrl_c_at_any_step_is_raised_as_such_and_leaves_nothing_to_finish(tmp_path: Path) -> None:
    found: list[dict[str, str]] = []
    for count in range(0, 1000, 5):
        directory = tmp_path / str(count)
        write_bundle(directory, OLD)
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, signalled_at(count))
            try:
                write_new(directory)
                completed = True
            except KeyboardInterrupt:
                completed = False
        found.append(contents_of(directory))
        assert {path.name for path in directory.iterdir()} == {*found[-1], "bundle.json"}, f"{count} steps"
        assert found[-1] in (OLD, NEW)
        if completed:
            break
    assert found.index(NEW) >= 2
    assert len(found) - found.index(NEW) >= 2


def killed_states(directory: Path, snapshots: Path, action: Callable[[Path], object]) -> Iterator[Path]:
    """What the disk holds at every step of an action: what SIGKILL there would leave."""
    taken: list[Path] = []

    def step() -> None:
        taken.append(snapshots / str(len(taken)))
        shutil.copytree(directory, taken[-1])

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, step)
        action(directory)
    yield from taken


@pytest.mark.untraced
def test_a_kill_at_any_step_and_another_while_recovering_leave_the_old_or_the_new_bundle(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "bundle"
    write_bundle(directory, OLD)
    recoveries = 0
    for state in killed_states(directory, tmp_path / "killed", write_new):
        expected = read_only_contents_of(state)
        recovered = (state / ".commit").exists()
        for again in killed_states(state, tmp_path / f"again{state.name}", finish) if recovered else ():
            recoveries += 1
            assert read_only_contents_of(again) == expected
            finish(again)
            assert contents_of(again) == expected
            assert visible(again) == {*expected, "bundle.json"}
        assert contents_of(state) in (OLD, NEW), f"killed after {state.name} steps"
        write_bundle(state, NEXT)
        assert contents_of(state) == NEXT
    assert recoveries >= 50


@pytest.mark.untraced
def test_a_first_write_killed_at_any_step_can_be_repeated(tmp_path: Path) -> None:
    def write_old(directory: Path) -> None:
        write_bundle(directory, OLD)

    (tmp_path / "bundle").mkdir()
    for state in killed_states(tmp_path / "bundle", tmp_path / "killed", write_old):
        write_old(state)
        assert contents_of(state) == OLD


WRITER = """
import itertools, sys
from pathlib import Path
from tests.manifests import write_bundle
print("ready", flush=True)
for turn in itertools.islice(itertools.count(), int(sys.argv[3])):
    text = f"{sys.argv[2]}{turn}"
    names = ("a.bin", "b.bin", f"only{turn % 3}.bin")
    write_bundle(Path(sys.argv[1]), {name: text for name in names})
"""


@contextlib.contextmanager
def writing(directory: Path, name: str, turns: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603 (this file, run by this interpreter)
        [sys.executable, "-c", WRITER, str(directory), name, str(turns)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def assert_finished(process: subprocess.Popen[str]) -> None:
    _, messages = process.communicate(timeout=60)
    assert messages == ""
    assert process.returncode == 0


def assert_whole(directory: Path) -> None:
    contents = contents_of(directory)
    (text,) = set(contents.values())
    assert set(contents) == {"a.bin", "b.bin", f"only{int(text[1:]) % 3}.bin"}


def test_a_writer_killed_at_random_moments_always_leaves_a_whole_bundle(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    rng = random.Random(1)  # noqa: S311 (when to kill is no secret)
    seen = set()
    for life in range(8):
        with writing(directory, chr(ord("a") + life), 10**9) as process:
            while not (directory / "bundle.json").exists() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0.005, 0.15))
        assert process.returncode == -signal.SIGKILL
        assert_whole(directory)
        seen.add(contents_of(directory)["a.bin"])
    assert len(seen) >= 2  # they did write


@pytest.mark.untraced
def test_a_reader_beside_a_writer_always_finds_a_bundle(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    write_bundle(directory, OLD)
    with writing(directory, "w", 100) as process:
        while process.poll() is None:
            Bundle.open(directory)
        assert_finished(process)
    assert_whole(directory)


def test_two_writers_beside_each_other_both_succeed(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    with writing(directory, "v", 120) as one, writing(directory, "w", 120) as other:
        assert_finished(one)
        assert_finished(other)
    assert_whole(directory)
