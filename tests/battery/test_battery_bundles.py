"""Bundles that were damaged, or made to harm: refused by name within bounds, and nothing is changed anywhere.

Each case changes a copy of a real bundle at random, then asks for what every command begins with.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import json
import os
import random
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from riformer_deploy.api.inspect import inspect_file
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError, RIFormerDeployError
from riformer_deploy.evaluation.stored_parity import stored_parity
from tests.battery import cases
from tests.manifests import restate

pytestmark = pytest.mark.untraced

SECONDS = 20
MORE_BYTES = 2**31
"""What a case may add to the address space: reading the bundle takes a hundredth of it."""

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e300, -0.0, 1e-320, "", " ", ".", "..",
    "../bundle.json", "/etc/passwd", "a/b", "a\\b", "\u202e", "\x1b[2J", "\ud800", "x" * 100_000, [],
    [[]] * 50, {}, {"path": "x"}, [None], ["a"] * 1000, "model.fp32.onnx", "bundle.json", ".commit", "f" * 64,
    "NaN", "passed", "failed",
]  # fmt: skip
NO_RECORDS = [
    b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"NaN", b"null", b"9" * 5000, b'{"a":1,"a":2}', b"\0"
]  # fmt: skip
KINDS = ["pipe", "folder", "zero", "link", "dangling", "loop", "socket", "sparse", "folder link"]


def places(data: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in JSON data, as keys and numbers."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


def altered(rng: random.Random, data: Any) -> Any:
    """The data with one to three values replaced, removed, doubled or renamed."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        found = list(places(data))
        if not found:
            return data
        *way, last = rng.choice(found)
        parent = data
        for key in way:
            parent = parent[key]
        what = rng.random()
        if what < 0.6:
            parent[last] = copy.deepcopy(rng.choice(ODD))
        elif what < 0.7 and isinstance(parent[last], (int, float)):
            parent[last] *= rng.choice([-1, 0, 10, 1e9])
        elif what < 0.8:
            del parent[last]
        elif isinstance(parent, dict):
            parent[rng.choice(["unknown", str(last) + " "])] = parent[last]
        else:
            parent.append(copy.deepcopy(parent[last]))
    return data


def flip(rng: random.Random, bundle: Path) -> None:
    """Bytes of a file, or its end."""
    path = rng.choice(sorted(bundle.iterdir()))
    content = bytearray(path.read_bytes())
    what = rng.random()
    if what < 0.5:
        for _ in range(rng.choice([1, 1, 10])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif what < 0.8:
        del content[rng.randrange(len(content)) :]
    else:
        content += rng.randbytes(rng.randint(1, 1000))
    path.write_bytes(content)


def manifest(rng: random.Random, bundle: Path) -> None:
    """The manifest's data."""
    path = bundle / "bundle.json"
    path.write_text(json.dumps(altered(rng, json.loads(path.read_text(encoding="utf-8")))))


def report(rng: random.Random, bundle: Path) -> None:
    """The parity report's data; its hash is right."""
    data = altered(rng, json.loads((bundle / "parity.json").read_text(encoding="utf-8")))
    restate(bundle, "parity.json", json.dumps(data).encode())


def text(rng: random.Random, bundle: Path) -> None:
    """JSON that is none, or endless."""
    name = rng.choice(["bundle.json", "parity.json"])
    content = rng.choice(NO_RECORDS)
    if name == "bundle.json":
        (bundle / name).write_bytes(content)
    else:
        restate(bundle, name, content)


def other_content(rng: random.Random, bundle: Path) -> None:
    """A file with the content of another, or with noise; its hash is right."""
    paths = sorted(path for path in bundle.iterdir() if path.name != "bundle.json")
    path = rng.choice(paths)
    restate(bundle, path.name, rng.choice([rng.choice(paths).read_bytes(), rng.randbytes(5000), b"\x00"]))


def strange(rng: random.Random, path: Path, outside: Path) -> None:
    """Something that is no file in place of a path, or a link that leads out."""
    kind = rng.choice(
        ["pipe", "folder", "zero", "link", "dangling", "loop", "socket", "sparse", "folder link"]
    )
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        (path / "x").touch()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 2**40)
    else:
        targets = {"zero": Path("/dev/zero"), "link": outside / "mine", "dangling": outside / "absent"}
        path.symlink_to(targets.get(kind, Path(path.name) if kind == "loop" else outside))


def graph(rng: random.Random, bundle: Path) -> None:
    """The fields of a graph; its hash is right."""
    content = bytearray((bundle / "model.fp32.onnx").read_bytes())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        if rng.random() < 0.5:  # where the nodes' names, operators and attributes are
            at = max(content.find(rng.choice([b"Conv", b"Reshape", b"strides", b"pads", b"Mul"]), at), 8)
        content[at - rng.randint(0, 8)] = rng.randrange(256)
    restate(bundle, "model.fp32.onnx", bytes(content))


def no_file(rng: random.Random, bundle: Path) -> None:
    path = rng.choice(sorted(bundle.iterdir()))
    path.unlink()
    strange(rng, path, bundle.parent / "outside")


def planted(rng: random.Random, bundle: Path) -> None:
    """What an interrupted writer leaves, made by somebody else."""
    outside = bundle.parent / "outside"
    name = rng.choice([".commit", ".commit", ".commit", ".pending-abc", ".accuracy-0123456789abcdef.jsonl"])
    if rng.random() < 0.4:
        strange(rng, bundle / name, outside)
        return
    shutil.copytree(bundle, outside / "copy")
    (outside / "copy").rename(bundle / name)
    path = rng.choice(sorted((bundle / name).iterdir()))
    if rng.random() < 0.8:
        path.unlink()
    if rng.random() < 0.8 and not path.exists():
        strange(rng, path, outside)


CHANGES: list[Callable[[random.Random, Path], None]] = [
    flip,
    manifest,
    manifest,
    report,
    report,
    text,
    other_content,
    graph,
    no_file,
    planted,
    planted,
]


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Kind, size, times and first bytes of everything below."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        plain = path.is_file() and not path.is_symlink() and status.st_size < 2**30
        content = path.read_bytes()[:64] if plain else b""
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
    return found


def ask(bundle: Path) -> None:
    """What every command begins with; an error of the toolkit is an answer, another one is not."""
    with contextlib.suppress(RIFormerDeployError):
        inspect_file(bundle)
    with contextlib.suppress(BundleError):
        opened = Bundle.open(bundle)
        stored_parity(opened)
        for artifact in opened.manifest.onnx:
            opened.graph(artifact)


@pytest.fixture(name="bounded")
def fixture_bounded() -> Iterator[None]:
    """Memory is bounded; a case that hangs ends the run with every stack."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 (the system's)
        pages = int(file.read().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("bounded")
def test_a_broken_or_hostile_bundle_is_answered_in_bounds_and_nothing_is_changed(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    for number, rng in enumerate(cases(60, 3000)):
        room = tmp_path / str(number)
        bundle = Path(shutil.copytree(tiny_bundle, room / "bundle"))
        (room / "outside").mkdir()
        (room / "outside" / "mine").write_text("the user's own")
        change = rng.choice(CHANGES)
        change(rng, bundle)
        before = snapshot(room)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            ask(bundle)
        except Exception as err:
            err.add_note(f"case {number}: {change.__name__}")
            raise
        faulthandler.cancel_dump_traceback_later()
        assert snapshot(room) == before, f"case {number}: {change.__name__}"
        shutil.rmtree(room)
