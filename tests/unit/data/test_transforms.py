from __future__ import annotations

import numpy as np
import pytest

from riformer_deploy.data.synthetic import synthetic_images


def test_shape_and_type_are_the_networks() -> None:
    images = synthetic_images(3, (32, 48), seed=0)
    assert images.shape == (3, 3, 32, 48)
    assert images.dtype == np.float32
    assert np.isfinite(images).all()


def test_the_same_seed_gives_the_same_images_and_another_others() -> None:
    first = synthetic_images(4, (16, 16), seed=7)
    assert np.array_equal(first, synthetic_images(4, (16, 16), seed=7))
    other = synthetic_images(4, (16, 16), seed=8)
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_noise_is_the_same_on_every_machine() -> None:
    noise = synthetic_images(1, (8, 8), seed=20230406)
    expected = np.random.Generator(np.random.PCG64([20230406, 0])).standard_normal((1, 3, 8, 8), np.float32)
    assert noise.tobytes() == expected.tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_fewer_images_are_the_first_of_more(count: int) -> None:
    assert np.array_equal(
        synthetic_images(count, (16, 24), seed=3), synthetic_images(6, (16, 24), seed=3)[:count]
    )


def test_no_two_images_or_channels_are_alike() -> None:
    images = synthetic_images(8, (16, 16), seed=0)
    planes = {plane.tobytes() for plane in images.reshape(-1, 16, 16)}
    assert len(planes) == 8 * 3


def test_even_images_are_noise_and_odd_ones_smooth() -> None:
    images = synthetic_images(20, (64, 64), seed=0)
    # neighbours correlate fully in a smooth image and not at all in noise
    roughness = np.abs(np.diff(images, axis=3)).mean(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert roughness[0::2].min() > 1
    assert roughness[1::2].max() < 0.3


@pytest.mark.parametrize("first", [0, 1], ids=["noise", "smooth"])
def test_both_kinds_have_about_mean_0_and_deviation_1(first: int) -> None:
    images = synthetic_images(400, (24, 24), seed=5)[first::2]
    assert abs(images.mean()) < 0.1
    assert images.std() == pytest.approx(1, abs=0.15)


def test_smooth_images_differ_in_their_means_as_photographs_do() -> None:
    means = synthetic_images(100, (24, 24), seed=5).mean(axis=(1, 2, 3))
    assert means[0::2].std() < 0.05
    assert means[1::2].std() > 0.2
