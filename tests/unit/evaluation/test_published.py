from __future__ import annotations

import dataclasses

import pytest

from riformer_deploy.evaluation.accuracy_results import share_of
from riformer_deploy.evaluation.published import far_below, figures_of, published_of
from riformer_deploy.model.variants import VARIANTS

S12 = VARIANTS["riformer-s12_in1k"]
FILE = S12.sha256_prefix + "0" * 56


def test_figures_are_those_of_the_shape_and_size() -> None:
    found = published_of(S12.architecture, (384, 384), FILE)
    assert found is not None
    assert (found.variant, found.top1_percent, found.same_file) == ("riformer-s12_in1k-384", 78.29, False)
    of_file = published_of(S12.architecture, (224, 224), FILE)
    assert of_file is not None
    assert of_file.same_file
    assert published_of(S12.architecture, (224, 256), FILE) is None
    ten = dataclasses.replace(S12.architecture, num_classes=10)
    assert published_of(ten, (224, 224), FILE) is None


@pytest.mark.parametrize(
    ("right", "images", "far"),
    [
        (38_000, 50_000, False),  # 76.0 %
        (36_000, 50_000, True),  # 72.0 %
        (72, 100, False),  # as low, but so few pictures tell nothing
        (0, 100, True),
    ],
)
def test_only_what_is_surely_lower_by_points_is_far_below(right: int, images: int, *, far: bool) -> None:
    said = far_below(share_of(right, images), figures_of(S12, FILE))
    assert (said is not None) is far


def test_the_warning_says_whether_the_weights_are_those_that_were_published() -> None:
    said = [far_below(share_of(1, 1000), figures_of(S12, sha256)) or "" for sha256 in (FILE, "0" * 64)]
    assert (
        "top-1 is 0.10 %, far below the 76.90 % that was published of riformer-s12_in1k: other prep"
        in said[0]
    )
    assert "class order" in said[0]
    assert "if these weights are of the same training" in said[1]
