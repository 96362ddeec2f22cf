"""Candidates like engines: their inside cannot be seen, and they take few batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from riformer_deploy.backends.base import ANY_BATCH, BatchRange, Candidate, Outputs, Runtime
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.parity import ParityTask, verify_parity
from riformer_deploy.evaluation.results import CandidateParity, InputImages, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES
from tests.candidates import labelled

SIZE = (2, 2)
BATCHES = (2, 1, 5)
BLOCKS = (("backbone.network.0.0", "backbone.network.0.1"), ("backbone.network.2.0",))


@dataclass
class Scores(Runtime):
    """Scores of an image that follow from its first pixel, wrong by ``error`` from the image ``wrong`` on."""

    batches: BatchRange = ANY_BATCH
    observable: bool = True
    error: float = 0.0
    wrong: float = 0.0
    wrong_batch: int | None = None
    seen: list[int] = field(default_factory=list)
    closed: int = 0

    def run(self, images: Images) -> Outputs:
        assert self.batches.refusal(len(images)) is None
        self.seen.append(len(images))
        first = images[:, 0, 0, 0].astype(np.float64)
        scores = np.outer(1 + first, np.arange(1.0, 4.0))
        if self.wrong_batch in (None, len(images)):
            scores[:, 1] += np.where(first >= self.wrong, self.error, 0)
        return {"logits": scores}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        if not self.observable:
            raise RuntimeFailureError("an engine shows no activations")
        return {name: np.ones((len(images), 1, 2, 2)) for name in tensors}

    def close(self) -> None:
        self.closed += 1


def _judged(runtime: Scores, parity_batches: tuple[int, ...] = ()) -> CandidateParity:
    count = sum(BATCHES)
    candidate = Candidate(
        config=labelled("engine"),
        artifact_sha256="ab",
        open=lambda: runtime,
        batches=runtime.batches,
        parity_batches=parity_batches,
        observable=runtime.observable,
    )
    reference = replace(
        candidate,
        config=labelled("reference"),
        open=Scores,
        batches=ANY_BATCH,
        observable=True,
        parity_batches=(),
    )
    task = ParityTask(
        reference=reference,
        candidates=[candidate],
        tolerances=TOLERANCES,
        blocks=BLOCKS,
        images=np.arange(count, dtype=np.float32).repeat(12).reshape(count, 3, *SIZE),
        inputs=InputImages(description="test", image_size_px=SIZE, batches=BATCHES, seed=None),
    )
    (found,) = verify_parity(task).candidates
    assert runtime.closed == 1
    return found


@pytest.mark.parametrize("observable", [False, True])
def test_stages_are_compared_only_where_they_can_be_seen(*, observable: bool) -> None:
    found = _judged(Scores(observable=observable))
    assert found.status is Status.PASSED
    assert [stage.tensor for stage in found.stages] == [stage[-1] for stage in BLOCKS if observable]


def test_a_wrong_engine_fails_and_no_block_is_looked_for() -> None:
    found = _judged(Scores(observable=False, error=0.5))
    assert found.status is Status.FAILED
    assert (found.stages, found.first_bad_block) == ((), None)
    assert found.outputs[0].decisions is not None
    assert found.outputs[0].decisions.images == sum(BATCHES)


@pytest.mark.parametrize(
    ("batches", "seen"),
    [
        (ANY_BATCH, [2, 1, 5]),
        (BatchRange.of(1), [1] * 8),
        (BatchRange.of(4), [4, 4, 4, 4]),
        (BatchRange(ranges=((2, 3),)), [2, 2, 3, 2]),
    ],
    ids=["any", "one", "four", "two or three"],
)
def test_every_image_is_compared_in_sizes_that_the_engine_takes(batches: BatchRange, seen: list[int]) -> None:
    runtime = Scores(batches=batches, observable=False)
    assert _judged(runtime).status is Status.PASSED
    assert runtime.seen == seen
    last = Scores(batches=batches, observable=False, error=0.5, wrong=sum(BATCHES) - 1)
    assert _judged(last).status is Status.FAILED


def test_sizes_that_the_engine_has_kernels_of_its_own_for_are_proven_too() -> None:
    runtime = Scores(observable=False)
    found = _judged(runtime, (4, 11))
    assert found.status is Status.PASSED
    assert runtime.seen == [2, 1, 5, 4, 11]
    assert found.batches == (2, 1, 5, 4, 11)
    assert _judged(Scores(observable=False, error=0.5, wrong_batch=11)).status is Status.PASSED
    assert _judged(Scores(observable=False, error=0.5, wrong_batch=11), (4, 11)).status is Status.FAILED
