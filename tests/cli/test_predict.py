from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

Cli = Callable[..., CompletedProcess[str]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (70, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_folder_is_predicted_as_a_table(cli: Cli, pictures: Path, tiny_bundle: Path) -> None:
    done = cli("predict", pictures, tiny_bundle, "--top", "2")
    assert done.returncode == 0
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[1].strip()[-5:] for row in rows] == ["0.png", "", "1.png", "", "2.png", ""]
    for row in rows:
        assert row[3].strip() == f"class {row[2].strip()}"
        assert 0 <= float(row[4]) <= 1


def test_json_is_the_record(cli: Cli, pictures: Path, tiny_bundle: Path) -> None:
    done = cli(
        "predict", f"{pictures}/[01].png", pictures / "2.png", tiny_bundle, "--json", "--with", "torch"
    )
    record = json.loads(done.stdout)
    assert [Path(item["image"]).name for item in record["predictions"]] == ["0.png", "1.png", "2.png"]
    first = record["predictions"][0]["guesses"]
    assert [set(guess) for guess in first] == [{"label", "name", "score"}] * 5
    assert first[0]["name"] == f"class {first[0]['label']}"
    assert [guess["score"] for guess in first] == sorted((g["score"] for g in first), reverse=True)


def test_the_bundle_of_the_current_folder_is_the_default(
    cli: Cli, pictures: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle)
    named = cli("predict", pictures, tiny_bundle, "--json")
    assert (
        json.loads(cli("predict", pictures, "--json").stdout)["predictions"]
        == (json.loads(named.stdout)["predictions"])
    )


def test_broken_pictures_are_named_after_the_others_and_are_exit_code_60(
    cli: Cli, pictures: Path, tiny_bundle: Path
) -> None:
    (pictures / "1.png").write_bytes(b"broken")
    done = cli("predict", pictures, tiny_bundle, "--json")
    assert done.returncode == 60
    record = json.loads(done.stdout)
    assert len(record["predictions"]) == 2
    assert record["broken"][0]["image"].endswith("1.png")
    assert f"{pictures / '1.png'} cannot be decoded" in done.stderr
    assert "1 pictures could not be used" in done.stderr


def test_a_pattern_without_matches_is_a_usage_error(cli: Cli, tmp_path: Path, tiny_bundle: Path) -> None:
    done = cli("predict", f"{tmp_path}/*.jpg", tiny_bundle)
    assert done.returncode == 2
    assert "matches nothing" in done.stderr


def test_features_are_written(cli: Cli, pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "f.npz"
    done = cli("features", pictures, tiny_bundle, "-o", target)
    assert (done.returncode, done.stdout) == (
        0, f"{target}: features [3, 32] float32, from PyTorch float32, training form\n",
    )  # fmt: skip
    assert cli("features", pictures, tiny_bundle, "-o", target).returncode == 32
    done = cli("features", pictures, tiny_bundle, "-o", target, "--stage", "2", "--force", "--json")
    assert json.loads(done.stdout)["shape"] == [3, 16, 8, 6]


@pytest.mark.usefixtures("no_gpu")
def test_engines_that_cannot_run_here_are_one_clear_error(
    cli: Cli, pictures: Path, engine_bundle: Path
) -> None:
    done = cli("predict", pictures, engine_bundle, "--with", "engine")
    assert (done.returncode, done.stdout) == (51, "")
    assert "TensorRT-RTX fp32: there is no NVIDIA GPU to run on" in done.stderr
    assert "Choose another --with." in done.stderr
