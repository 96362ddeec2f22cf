from __future__ import annotations

import numpy as np

from riformer_deploy.evaluation.bootstrap import ratio_of_medians


def test_the_ratio_of_medians_is_the_same_every_time_and_covers_the_true_one() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    inside = 0
    for _ in range(100):
        found = ratio_of_medians(list(1.1 * rng.lognormal(0, 0.1, 30)), list(rng.lognormal(0, 0.1, 30)))
        assert found.ci95 is not None
        inside += found.ci95[0] <= 1.1 <= found.ci95[1]
    assert inside >= 88
    assert ratio_of_medians([2.0, 3.0], [1.0, 1.5]) == ratio_of_medians([2.0, 3.0], [1.0, 1.5])
    assert ratio_of_medians([2.0, 3.0], [1.0, 1.5]).ci95 is None
