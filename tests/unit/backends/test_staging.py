from __future__ import annotations

import numpy as np
import pytest

from riformer_deploy.backends import staging
from riformer_deploy.backends.staging import PARALLEL_BYTES, stage_images


@pytest.mark.parametrize("cores", [1, 3, 64])
@pytest.mark.parametrize("batch", [1, 2, 7, 16])
def test_large_batches_arrive_whole_however_many_threads_copy(
    monkeypatch: pytest.MonkeyPatch, cores: int, batch: int
) -> None:
    monkeypatch.setattr(staging, "usable_cores", lambda: cores)
    monkeypatch.setattr(staging, "PARALLEL_BYTES", 1)
    images = np.random.default_rng(0).standard_normal((batch, 3, 5, 7)).astype(np.float32)
    target = np.full_like(images, np.nan)
    stage_images(target, images)
    np.testing.assert_array_equal(target, images)


def test_what_cannot_be_copied_is_an_error_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "usable_cores", lambda: 4)
    images = np.zeros((4, PARALLEL_BYTES // 16), dtype=np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        stage_images(np.zeros((4, 3), dtype=np.float32), images)


def test_small_batches_start_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "ThreadPoolExecutor", lambda *_: pytest.fail("threads were started"))
    target = np.empty((4, 3), dtype=np.float32)
    stage_images(target, np.ones((4, 3), dtype=np.float32))
    assert target.min() == 1
