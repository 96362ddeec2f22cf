from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from riformer_deploy.bundle.manifest import Manifest
from riformer_deploy.common.serialization import load_json
from riformer_deploy.model.variants import VARIANTS, Variant

pytestmark = pytest.mark.usefixtures("without_openvino")

Cli = Callable[..., CompletedProcess[str]]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, tiny_checkpoint: Path, tiny_variants: tuple[Variant, ...]) -> Path:
    """A folder with the tiny model's file under the name of a published one."""
    content = tiny_checkpoint.read_bytes()
    prefix = hashlib.sha256(content).hexdigest()[:8]
    variant = dataclasses.replace(tiny_variants[0], file_name=f"riformer-tiny-{prefix}.pth")
    VARIANTS[variant.name] = variant  # tiny_variants takes it back
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / variant.file_name).write_bytes(content)
    return folder


@pytest.fixture
def mirror(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Quiet, directory=str(published))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_published_file_is_fetched_once(cli: Cli, mirror: str, published: Path, tmp_path: Path) -> None:
    (name,) = (path.name for path in published.iterdir())
    line = ("download", "riformer-tiny-64", "-o", tmp_path / "here", "--mirror", mirror)
    done = cli(*line)
    assert done.returncode == 0
    assert "bytes fetched" in done.stdout
    assert (tmp_path / "here" / name).read_bytes() == (published / name).read_bytes()
    again = json.loads(cli(*line, "--json").stdout)
    assert again["fetched_bytes"] == 0


@pytest.mark.untraced
def test_export_takes_a_name(
    cli: Cli, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    done = cli("export", "riformer-tiny-64", "--mirror", mirror)
    assert done.returncode == 0, done.stderr
    manifest = load_json(Manifest, (work / "riformer-tiny-64" / "bundle.json").read_text())
    assert manifest.model.preprocessing.crop_px == (64, 64)
    assert manifest.model.preprocessing.resize_short_edge_px == 72
    assert manifest.source.sha256 == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()


def test_names_that_are_not_known_or_not_there_say_so(cli: Cli, mirror: str, tmp_path: Path) -> None:
    done = cli("download", "riformer-s13", "-o", tmp_path, "--mirror", mirror)
    assert done.returncode == 2
    assert "no published RIFormer" in done.stderr
    done = cli("download", "riformer-tiny-96", "-o", tmp_path, "--mirror", mirror, "--json")
    assert done.returncode == 62
    assert "the server says 404" in json.loads(done.stdout)["error"]["message"]


def test_the_table_is_reproduced_from_files_that_are_there(cli: Cli, published: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (14, 80, 90, 3), dtype=np.uint8)
    np.savez(data, images=pixels, labels=np.arange(14) % 7)
    line = ("reproduce", "riformer-tiny-64", "--data", data, "--checkpoints", published)
    record = json.loads(cli(*line, "--json").stdout)
    assert [row["form"] for row in record["models"]] == ["training", "deploy"]
    shown = cli(*line)
    assert shown.returncode == 0
    assert "| 50.00" in shown.stdout
    assert "14 of 14 pictures" in shown.stderr
