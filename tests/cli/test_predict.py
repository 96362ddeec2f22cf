from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from riformer_deploy.data.decoding import decode_image

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
    assert "1 picture could not be used" in done.stderr


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


def test_a_mistyped_bundle_is_never_answered_by_another_one(
    cli: Cli, pictures: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle)
    done = cli("predict", pictures, f"{tiny_bundle}-typo")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no such picture, folder or bundle" in done.stderr
    assert cli("predict", pictures, "--bundle", f"{tiny_bundle}-typo").returncode == 30


@pytest.mark.parametrize(
    ("argument", "said"),
    [("-", "not read from standard input"), ("https://example.org/cat.jpg", "not fetched")],
)
def test_standard_input_and_urls_say_what_to_do_instead(
    cli: Cli, tiny_bundle: Path, argument: str, said: str
) -> None:
    done = cli("predict", argument, "--bundle", tiny_bundle)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_what_is_left_out_of_a_folder_is_said(cli: Cli, pictures: Path, tiny_bundle: Path) -> None:
    (pictures / "notes.txt").touch()
    (pictures / "@eaDir").mkdir()
    (pictures / "@eaDir" / "0.png").touch()
    done = cli("predict", pictures, "--bundle", tiny_bundle, "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["predictions"]) == 3
    assert "left out, no pictures by their names: 1 (notes.txt)" in done.stderr
    assert "left out, hidden, or thumbnails: 1 (@eaDir)" in done.stderr


def test_no_warning_of_a_library_reaches_the_user(cli: Cli, pictures: Path, tiny_bundle: Path) -> None:
    odd = pictures / "3.jpg"
    tag = b"\x01\x0f\x00\x02\x00\x00\xff\xff\x00\x00\x00\x08"  # a maker's name of 65535 letters
    Image.new("RGB", (60, 70)).save(odd, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + tag + bytes(4))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode_image(odd)
        assert [warning.filename for warning in seen if "PIL" in warning.filename]  # the control
        seen.clear()
        done = cli("predict", odd, "--bundle", tiny_bundle)
    assert done.returncode == 0
    assert [warning for warning in seen if "PIL" in warning.filename] == []


@pytest.mark.slow
def test_a_graph_that_gives_its_first_classes_alone_is_predicted_with_these(
    cli: Cli, pictures: Path, tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = (
        "export",
        tiny_checkpoint,
        "-o",
        tmp_path / "topk",
        "--image-size",
        "64x48",
        "--output-form",
        "topk=3",
    )
    assert cli(*line).returncode == 0
    few = json.loads(cli("predict", pictures, tmp_path / "topk", "--json").stdout)["predictions"]
    full = json.loads(cli("predict", pictures, tiny_bundle, "--top", "3", "--json").stdout)["predictions"]
    for one, other in zip(few, full, strict=True):
        assert [g["name"] for g in one["guesses"]] == [g["name"] for g in other["guesses"]]
        assert [g["score"] for g in one["guesses"]] == pytest.approx(
            [g["score"] for g in other["guesses"]], abs=1e-5
        )
    first = json.loads(cli("predict", pictures, tmp_path / "topk", "--top", "1", "--json").stdout)
    assert [len(item["guesses"]) for item in first["predictions"]] == [1, 1, 1]


def test_a_precision_chooses_the_model(cli: Cli, pictures: Path, precise_bundle: Path) -> None:
    for precision in ("fp16", "int8"):
        done = cli("predict", pictures, precise_bundle, "--precision", precision, "--json")
        assert json.loads(done.stdout)["model"] == f"ONNX Runtime {precision}"
    done = cli("predict", pictures, precise_bundle, "--precision", "int8", "--with", "torch")
    assert (done.returncode, done.stdout) == (30, "")
    assert "holds nothing that runs here with torch in int8" in done.stderr
    refused = cli("predict", pictures, precise_bundle, "--precision", "bf16").stderr
    assert "It holds ONNX Runtime fp32, ONNX Runtime fp16, ONNX Runtime int8: choose another" in refused
