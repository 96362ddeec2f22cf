from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import riformer_deploy
from riformer_deploy.api.predict import predict_images
from riformer_deploy.common.errors import BundleError, OptionError, RuntimeFailureError
from riformer_deploy.data.image_files import PictureFiles
from riformer_deploy.data.unusable_image import UnusableImage
from riformer_deploy.serving.classifier import Classifier, Prediction


@pytest.fixture
def picture(tmp_path: Path, digits_data: dict[str, NDArray[Any]]) -> Path:
    """A digit as a file."""
    path = tmp_path / "digit.png"
    Image.fromarray(digits_data["val_images"][0]).save(path)
    return path


def test_paths_bytes_arrays_and_pillow_images_are_the_same_picture_and_a_bad_one_stays_in_its_place(
    digits_bundle: Path, picture: Path, digits_data: dict[str, NDArray[Any]]
) -> None:
    array = digits_data["val_images"][0]
    given = [picture, str(picture), b"no picture", picture.read_bytes(), array, Image.fromarray(array)]
    with riformer_deploy.Classifier.open(digits_bundle, with_="onnx") as classifier:
        found = classifier.classify(given, top=3, batch=4)
    assert [item.image for item in found] == [str(picture)] * 2 + [f"image {n}" for n in range(2, 6)]
    (bad,) = [item for item in found if isinstance(item, UnusableImage)]
    assert found[2] is bad
    assert "image 2 cannot be decoded" in bad.reason
    guesses = {item.guesses for item in found if isinstance(item, Prediction)}
    (expected,) = predict_images(digits_bundle, PictureFiles(paths=(picture,)), top=3).predictions
    assert guesses == {expected.guesses}


def test_a_precision_is_chosen_and_one_that_is_not_there_is_refused_by_name(precise_bundle: Path) -> None:
    with Classifier.open(precise_bundle, precision="int8", threads=1) as classifier:
        assert classifier.name == "ONNX Runtime int8"
    with pytest.raises(BundleError, match="fp8") as caught:
        Classifier.open(precise_bundle, precision="fp8")
    assert "ONNX Runtime fp32, ONNX Runtime fp16, ONNX Runtime int8" in caught.value.remedy
    with pytest.raises(OptionError, match="fp64"):
        Classifier.open(precise_bundle, precision="fp64")


@pytest.mark.parametrize("with_", ["onnx", "openvino"])
def test_threads_that_share_a_classifier_get_their_own_answers(
    with_: str, digits_bundle: Path, digits_data: dict[str, NDArray[Any]]
) -> None:
    pictures = list(digits_data["val_images"][:24])
    with Classifier.open(digits_bundle, with_=with_, threads=1) as classifier:
        alone = [classifier.classify([item]) for item in pictures]
        barrier = threading.Barrier(8)

        def ask(start: int) -> list[list[Prediction | UnusableImage]]:
            barrier.wait(timeout=30)
            return [classifier.classify([item]) for item in pictures[start::8]]

        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, range(8)))
    assert together == [alone[start::8] for start in range(8)]


def test_a_closed_classifier_says_so(digits_bundle: Path, picture: Path) -> None:
    classifier = Classifier.open(digits_bundle, warm_up=False)
    classifier.close()
    classifier.close()
    with pytest.raises(RuntimeFailureError, match="was closed"):
        classifier.classify([picture])


def test_a_model_that_cannot_run_is_found_when_it_is_warmed_up(
    digits_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def close(self: Classifier) -> None:
        closed.append(self.name)

    def fail(*_: object) -> None:
        raise RuntimeFailureError("no memory")

    monkeypatch.setattr("riformer_deploy.serving.classifier.first_guesses", fail)
    monkeypatch.setattr(Classifier, "close", close)
    with pytest.raises(RuntimeFailureError, match="no memory"):
        Classifier.open(digits_bundle)
    assert closed == ["ONNX Runtime fp32"]


def test_what_is_no_list_of_pictures_is_refused(digits_bundle: Path) -> None:
    with Classifier.open(digits_bundle, warm_up=False) as classifier:
        with pytest.raises(OptionError, match="got one str"):
            classifier.classify("photos/cat.jpg")
        with pytest.raises(OptionError) as caught:
            classifier.classify([np.zeros((64, 64), np.uint8), 7])  # type: ignore[list-item]
        assert [item.partition(":")[0] for item in caught.value.details] == ["image 0", "image 1"]
        with pytest.raises(OptionError, match="top"):
            classifier.classify([], top=0)
        assert classifier.classify([]) == []
