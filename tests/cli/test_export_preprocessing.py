from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from riformer_deploy.bundle.store import Bundle
from riformer_deploy.data.preprocessing import Preprocessing

pytestmark = pytest.mark.usefixtures("without_openvino")


def test_preprocessing_and_class_names_are_what_the_command_line_says(
    cli: Callable[..., CompletedProcess[str]], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"name {number}\n" for number in range(7)))
    spec = "short-edge=72,crop=64x48,interpolation=lanczos,std=50/60/70,order=BGR"
    bundle = tmp_path / "bundle"
    done = cli("export", tiny_checkpoint, "-o", bundle, "--preprocess", spec, "--classes", names)
    assert done.returncode == 0, done.stderr
    model = Bundle.open(bundle).manifest.model
    assert model.preprocessing == Preprocessing(
        resize_short_edge_px=72,
        crop_px=(64, 48),
        interpolation="lanczos",
        std=(50, 60, 70),
        channel_order="BGR",
        source="option",
    )
    assert model.class_names == tuple(f"name {number}" for number in range(7))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--preprocess", "crop=32,size=3"), "--preprocess cannot be read"),
        (("--preprocess", "crop=32", "--image-size", "64"), "contradict each other"),
        (("--preprocess", "crop=32,short-edge=30"), "smaller than the crop"),
        (("--image-size", "64", "--classes", "gone.txt"), "cannot be read"),
    ],
)
def test_preprocessing_that_makes_no_sense_is_a_usage_error(
    options: tuple[str, ...],
    said: str,
    cli: Callable[..., CompletedProcess[str]],
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    done = cli("export", tiny_checkpoint, "-o", tmp_path / "bundle", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_step_that_is_not_done_here_is_refused_before_pictures_and_not_at_export(
    cli: Callable[..., CompletedProcess[str]],
    write_checkpoint: Callable[..., Path],
    repository: Path,
    tmp_path: Path,
) -> None:
    config = (
        "test_pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), "
        "dict(type='CenterCrop', crop_size=64)]\n"
        "data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)"
    )
    checkpoint, picture = write_checkpoint(meta={"cfg": config}), repository / "tests/data/astronaut.png"
    done = cli("export", checkpoint, "-o", tmp_path / "bundle", "--image-size", "64")
    assert done.returncode == 0, done.stderr
    assert "grayscale" in done.stderr
    assert Bundle.open(tmp_path / "bundle").manifest.model.preprocessing.mean == (1, 2, 3)
    refused = cli("predict", picture, tmp_path / "bundle")
    assert (refused.returncode, "grayscale" in refused.stderr) == (2, True)
