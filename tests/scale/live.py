"""Pictures through a real Ray: ``make scale``, in an environment without PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle
from riformer_deploy.api.features import FeatureOptions, extract_features
from riformer_deploy.api.predict import Prediction, predict_images
from riformer_deploy.api.score import ScoreOptions, score_pictures
from riformer_deploy.common.dependencies import require
from riformer_deploy.common.enums import Group, Precision
from riformer_deploy.common.errors import BundleConflictError, BundleIntegrityError, OptionError
from riformer_deploy.common.serialization import to_jsonable
from riformer_deploy.data.image_files import PictureFiles, find_pictures
from riformer_deploy.serving import ray_pictures
from riformer_deploy.serving.ray_session import RayOptions, ray_session
from riformer_deploy.serving.score_file import parts_of
from tests.scale.processes import descendants, listening

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "val"
COMMAND = Path(sys.executable).with_name("riformer-deploy")
TWO = RayOptions(actors=2)
pytestmark = pytest.mark.filterwarnings("default")  # Ray has many of its own


@pytest.fixture(scope="session")
def bundles() -> Path:
    """The folder of what ``make scale`` exported: digits in fp32 and int8, and features."""
    assert importlib.util.find_spec("torch") is None, "this is to run where PyTorch is not installed"
    return Path(os.environ["SCALE_BUNDLES"]).resolve()


@pytest.fixture(scope="session")
def digits(bundles: Path) -> Path:
    """fp32 and int8."""
    return bundles / "digits"


@pytest.fixture(scope="session")
def _ray() -> Iterator[None]:
    """One Ray for the tests of this process; what they call finds it."""
    with ray_session(RayOptions()):
        yield


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> PictureFiles:
    """2,000 pictures, of which 20 are broken, under names that a URL could not have."""
    folder = tmp_path_factory.mktemp("many ü #1?")
    sources = sorted(DIGITS.glob("*/*.png"))
    for number in range(2000):
        shutil.copyfile(sources[number % len(sources)], folder / f"{number:04d} %41;=&+.png")
    made = sorted(folder.iterdir())
    for place, path in enumerate(made[37::97][:20]):
        whole = path.read_bytes()
        path.write_bytes((b"", b"no picture", whole[: len(whole) // 2], whole[:40])[place % 4])
    return find_pictures([folder])


def rows_of(output: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    rows: list[dict[str, Any]] = require("pyarrow", "parquet").read_table(output).to_pylist()
    return rows


def expected_rows(
    bundle: Path, pictures: PictureFiles, precision: Precision | None = None, top: int = 5
) -> list[dict[str, Any]]:
    """What ``predict`` says of pictures, as rows."""
    report = predict_images(bundle, pictures, top=top, precision=precision)
    found: dict[str, dict[str, Any]] = {}
    for item in report.predictions:
        found[item.image] = {
            "image": item.image,
            "labels": [guess.label for guess in item.guesses],
            "names": [guess.name for guess in item.guesses],
            "scores": [guess.score for guess in item.guesses],
            "reason": None,
        }
    for bad in report.broken:
        found[bad.image] = dict.fromkeys(("labels", "names", "scores")) | {
            "image": bad.image, "reason": bad.reason
        }  # fmt: skip
    assert any(isinstance(item, Prediction) for item in report.predictions)
    return [found[pictures.name_of(number)] for number in range(len(pictures))]


@pytest.mark.usefixtures("_ray")
def test_2000_pictures_with_20_broken_an_actor_killed_and_a_pass_interrupted_are_what_predict_says(
    digits: Path, many: PictureFiles, tmp_path: Path
) -> None:
    output, killed, told = tmp_path / "scores.parquet", list[int](), list[int]()

    def disturb(done: int, _total: int) -> None:
        told.append(done)
        if not killed and done >= 500:
            killed.append(next(pid for pid, name in descendants() if name.startswith("ray::MapWorker")))
            os.kill(killed[0], signal.SIGKILL)
        if done >= 1200:
            raise KeyboardInterrupt

    options = ScoreOptions(output=output, precision=Precision.INT8, ray=TWO)
    with pytest.raises(KeyboardInterrupt):
        score_pictures(digits, many, options, disturb)
    assert (told[0], len(killed), output.exists()) == (0, 1, False)
    with pytest.raises(BundleConflictError, match="interrupted pass") as caught:
        score_pictures(digits, many, dataclasses.replace(options, top=3))
    assert caught.value.details == ("top: 5 then, 3 now",)
    damaged = max(parts_of(output).glob("*.parquet")).with_name("000000001216.parquet")
    damaged.write_bytes(b"PAR1 half a part")
    report = score_pictures(digits, many, options)
    assert (report.images, report.broken) == (2000, 20)
    assert report.resumed_from >= 1200
    assert report.resumed_from % 32 == 0
    assert rows_of(output) == expected_rows(digits, many, Precision.INT8)
    assert not parts_of(output).exists()
    with pytest.raises(BundleConflictError, match="exists already"):
        score_pictures(digits, many, options)


@pytest.mark.usefixtures("_ray")
def test_what_cannot_be_read_is_a_row_with_predict_s_reason_also_where_it_vanishes_meanwhile(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [Path(shutil.copy(path, tmp_path)) for path in sorted((DIGITS / "3").iterdir())[:12]]
    os.mkfifo(tmp_path / "pipe.png")
    odd = ["gone.png", "pipe.png", "line\nbreak.png", "packed.gz", os.fsdecode(b"latin\xe4.png")]
    for name in odd[2:]:
        shutil.copyfile(paths[0], tmp_path / name)
    pictures = PictureFiles(paths=(*paths[:3], *(tmp_path / name for name in odd), *paths[3:]))
    expected = expected_rows(digits, PictureFiles(paths=pictures.paths[:5] + pictures.paths[8:]), top=2)
    monkeypatch.chdir(tmp_path)
    relative = PictureFiles(paths=tuple(Path(path).relative_to(tmp_path) for path in pictures.paths))
    listed, opened = paths[7], paths[9]
    options = ScoreOptions(output="out.parquet", batch=4, top=2, ray=RayOptions(actors=1))
    data = require("ray", "data")
    looked_at, pool = ray_pictures._is_unlikely, data.ActorPoolStrategy

    def before_ray_lists_it(path: str) -> bool:
        found = looked_at(path)
        if path == str(listed):
            listed.unlink(missing_ok=True)
        return found

    def before_ray_opens_it(**how: Any) -> Any:
        opened.unlink(missing_ok=True)
        return pool(**how)

    monkeypatch.setattr(ray_pictures, "_is_unlikely", before_ray_lists_it)
    monkeypatch.setattr(data, "ActorPoolStrategy", before_ray_opens_it)
    score_pictures(digits, relative, options)
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["image"] for row in rows] == [
        path.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for path in map(Path, pictures.paths)
    ]
    for row in expected:
        row["image"] = Path(row["image"]).name
        if row["reason"]:
            row["reason"] = row["reason"].replace(f"{tmp_path}/", "")
    vanished = (listed.name, opened.name)
    usual = [row for row in rows[:5] + rows[8:] if row["image"] not in vanished]
    assert usual == [row for row in expected if row["image"] not in vanished]
    assert all("Ray Data does not read" in row["reason"] for row in rows[5:8])
    reasons = [row["reason"] for row in rows if row["image"] in vanished]
    assert reasons == [f"{name} cannot be decoded: there is no such file" for name in vanished]


@pytest.mark.usefixtures("_ray")
def test_features_are_what_features_writes(bundles: Path, many: PictureFiles, tmp_path: Path) -> None:
    some = PictureFiles(paths=many.paths[:200])
    options = ScoreOptions(output=tmp_path / "f.parquet", features=True, ray=TWO)
    report = score_pictures(bundles / "features", some, options)
    stored = FeatureOptions(output=tmp_path / "f.npz", group=Group.ONNX)
    extract_features(bundles / "features", some, stored)
    rows = rows_of(tmp_path / "f.parquet")
    assert report.broken == sum(row["features"] is None for row in rows) == 2
    good = [row for row in rows if row["features"] is not None]
    with np.load(tmp_path / "f.npz") as expected:
        assert expected["images"].tolist() == [row["image"] for row in good]
        np.testing.assert_array_equal(expected["features"], np.array([row["features"] for row in good]))


@pytest.mark.usefixtures("_ray")
def test_a_bundle_that_is_another_one_by_now_is_refused_where_it_is_opened(
    digits: Path, many: PictureFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(digits, tmp_path / "digits"))

    def change(*_: object) -> bool:  # after this process has checked it, before an actor does
        graph = copy / "model.fp32.onnx"
        graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
        return False

    monkeypatch.setattr(ray_pictures, "_is_unlikely", change)
    options = ScoreOptions(output=tmp_path / "s.parquet", ray=TWO)
    with pytest.raises(BundleIntegrityError, match=r"model\.fp32\.onnx is not the file"):
        score_pictures(copy, PictureFiles(paths=many.paths[:1]), options)


@pytest.mark.usefixtures("_ray")
def test_accuracy_is_the_same_record_and_a_pass_begun_here_is_ended_there(
    digits: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(digits, tmp_path / "digits"))
    (tmp_path / "val").mkdir()
    data = Path(shutil.copytree(DIGITS, tmp_path / "val" / "all"))
    (data / "3" / "broken.png").write_bytes(b"")
    plain = AccuracyOptions(data=data, groups=(Group.ONNX,))
    here = accuracy_bundle(copy, plain)

    def stop(done: int, _total: int) -> None:
        if done >= 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy_bundle(copy, plain, stop)
    answers = (copy / "accuracy.csv").read_text(encoding="utf-8")
    there = accuracy_bundle(copy, dataclasses.replace(plain, ray=TWO))
    assert (there.resumed_from, len(there.broken)) == (128, 1)
    changed = dataclasses.replace(there, resumed_from=0, created_utc=here.created_utc, machine=here.machine)
    assert to_jsonable(changed) == to_jsonable(here)
    assert (copy / "accuracy.csv").read_text(encoding="utf-8") == answers
    np.savez(tmp_path / "d.npz", val_images=np.zeros((1, 64, 64, 3), np.uint8), val_labels=np.zeros(1, int))
    with pytest.raises(OptionError, match="is one file"):
        accuracy_bundle(copy, dataclasses.replace(plain, data=tmp_path / "d.npz", ray=TWO))


def wait_until(holds: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for something, and fail if it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.2)


@contextlib.contextmanager
def scoring(line: list[object], messages: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process group of its own, as a terminal has it."""
    with messages.open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603  # our own command
            [str(COMMAND), "score", *map(str, line)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("send", "number", "code"), [(os.kill, signal.SIGTERM, 143), (os.killpg, signal.SIGINT, 130)]
)
def test_a_signal_ends_every_process_of_ray_and_nothing_listens_beyond_loopback(
    send: Callable[[int, int], None], number: int, code: int, digits: Path, many: PictureFiles, tmp_path: Path
) -> None:
    folder, messages, output = Path(many.paths[0]).parent, tmp_path / "stderr", tmp_path / "s.parquet"
    with scoring([folder, digits, "-o", output, "--batch", 8], messages) as process:
        wait_until(lambda: " of 2000 pictures" in messages.read_text().partition("0 of 2000")[2])
        born = descendants(process.pid)
        assert {"gcs_server", "raylet"} <= {Path(name.split()[0]).name for _, name in born}
        addresses = listening({pid for pid, _ in born} | {process.pid})
        assert addresses
        assert all(address.is_loopback for address in addresses)
        send(process.pid, number)
        assert process.wait(timeout=60) == code
    wait_until(lambda: not any(Path("/proc", str(pid)).exists() for pid, _ in born), 20)
    assert not output.exists()
    assert list(parts_of(output).glob("*.parquet"))


def test_a_cluster_of_two_machines_gives_the_same_and_is_left_running(
    digits: Path, many: PictureFiles, tmp_path: Path
) -> None:
    folder, output = Path(many.paths[0]).parent, tmp_path / "s.parquet"
    program = (
        "import sys\n"
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})\n"
        "cluster.add_node(num_cpus=1)\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.read()\n"
        "print([node['Alive'] for node in cluster.list_all_nodes() and __import__('ray').nodes()])\n"
        "cluster.shutdown()\n"
    )
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with subprocess.Popen(  # noqa: S603  # of this test
        [sys.executable, "-c", program],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        try:
            address = cluster.stdout.readline().strip()
            run = subprocess.run(  # noqa: S603  # our own command
                [COMMAND, "score", folder, digits, "-o", output, "--cluster", address, "--json"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert run.returncode == 0, run.stderr
            assert json.loads(run.stdout)["broken"] == 20
            assert rows_of(output) == expected_rows(digits, many)
            assert cluster.poll() is None
            assert {name for _, name in descendants(cluster.pid)} != set()
        finally:
            cluster.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                cluster.wait(timeout=60)


def test_a_cluster_that_is_not_there_is_said_to_be_so(digits: Path, tmp_path: Path) -> None:
    line: list[str | Path] = [
        COMMAND,
        "score",
        DIGITS,
        digits,
        "-o",
        tmp_path / "s.parquet",
        "--cluster",
        "127.0.0.1:1029",
    ]
    run = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
    assert (run.returncode, "No cluster at 127.0.0.1:1029" in run.stderr) == (50, True), run.stderr
