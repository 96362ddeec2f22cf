from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from riformer_deploy.backends.base import Candidate, Outputs, Runtime
from riformer_deploy.backends.pytorch import PyTorchRuntime
from riformer_deploy.backends.skipped import Skipped
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import RuntimeFailureError
from riformer_deploy.data.synthetic import synthetic_images
from riformer_deploy.data.transforms import Images
from riformer_deploy.evaluation.parity import ParityTask, verify_parity
from riformer_deploy.evaluation.results import CandidateParity, InputImages, Status
from riformer_deploy.evaluation.tolerances import TOLERANCES, Tolerance
from riformer_deploy.model.architecture import Architecture, Form
from riformer_deploy.model.network import RIFormer, model_from_state
from riformer_deploy.model.reparameterize import fold
from tests.candidates import labelled

State = dict[str, Tensor]
SIZE = (48, 64)
BATCHES = (2, 1, 3)


def _candidate(
    model: RIFormer, name: str = "candidate", kind: Callable[[RIFormer], Runtime] = PyTorchRuntime
) -> Candidate:
    return Candidate(config=labelled(name), artifact_sha256="ab", open=lambda: kind(model))


@pytest.fixture
def task(tiny_architecture: Architecture, tiny_state: State) -> ParityTask:
    """The tiny model in float64 against itself in float32, folded."""
    wide = {key: value.double() for key, value in tiny_state.items()}
    return ParityTask(
        reference=_candidate(model_from_state(tiny_architecture, Form.TRAINING, wide), "reference"),
        candidates=[_candidate(fold(model_from_state(tiny_architecture, Form.TRAINING, tiny_state)))],
        tolerances=TOLERANCES,
        blocks=tiny_architecture.block_names,
        images=synthetic_images(sum(BATCHES), SIZE, seed=4),
        inputs=InputImages(description="test", image_size_px=SIZE, batches=BATCHES, seed=4),
    )


def _against(task: ParityTask, model: RIFormer, **changes: object) -> CandidateParity:
    result = verify_parity(replace(task, candidates=[_candidate(model)], **changes))  # type: ignore[arg-type]
    assert result.status is result.candidates[0].status
    return result.candidates[0]


def test_the_folded_model_is_within_the_default_tolerance(task: ParityTask) -> None:
    result = verify_parity(task)
    (candidate,) = result.candidates
    assert result.status is candidate.status is Status.PASSED
    assert candidate.first_bad_block is None
    assert candidate.tolerance == TOLERANCES[Precision.FP32]
    assert [output.name for output in candidate.outputs] == ["logits"]
    assert [stage.tensor for stage in candidate.stages] == [stage[-1] for stage in task.blocks]
    assert [stage.stage for stage in candidate.stages] == [1, 2, 3, 4]
    (logits,) = candidate.outputs
    assert logits.decisions is not None
    assert logits.decisions.images == sum(BATCHES)
    assert logits.deviation.max_abs is not None
    assert 0 < logits.deviation.max_abs < 1e-5  # float32 was really compared with float64


@pytest.mark.parametrize(("block", "stage"), [("0.0", 1), ("2.0", 2), ("4.0", 3), ("4.1", 3), ("6.0", 4)])
@pytest.mark.parametrize("weight", ["mlp.fc1.weight", "mlp.fc2.bias", "token_mixer.affine.bias"])
@pytest.mark.untraced
def test_one_wrong_weight_fails_and_the_block_is_named(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State, block: str, stage: int, weight: str
) -> None:
    tiny_state[f"backbone.network.{block}.{weight}"].reshape(-1)[0] += 1e-2
    found = _against(task, model_from_state(tiny_architecture, Form.TRAINING, tiny_state))
    assert found.status is Status.FAILED
    assert found.first_bad_block == f"backbone.network.{block}"
    failed = [item.stage for item in found.stages if item.status is Status.FAILED]
    assert failed[0] == stage


@pytest.mark.parametrize("key", ["head.fc.weight", "head.fc.bias", "backbone.norm6.weight"])
def test_a_wrong_weight_behind_the_blocks_fails_and_no_block_is_blamed(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State, key: str
) -> None:
    tiny_state[key].reshape(-1)[0] += 1e-2
    found = _against(task, model_from_state(tiny_architecture, Form.TRAINING, tiny_state))
    assert found.status is Status.FAILED
    assert found.first_bad_block is None
    assert {item.status for item in found.stages} == {Status.PASSED}


def test_a_wrong_stem_is_seen_from_the_first_block_on(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State
) -> None:
    tiny_state["backbone.patch_embed.proj.weight"].reshape(-1)[0] += 1e-2
    found = _against(task, model_from_state(tiny_architecture, Form.TRAINING, tiny_state))
    assert found.first_bad_block == "backbone.network.0.0"


@pytest.mark.parametrize("key", ["head.fc.bias", "backbone.network.4.0.mlp.fc2.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_fail_whatever_the_tolerance(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State, key: str, value: float
) -> None:
    tiny_state[key][3] = value
    loose = {Precision.FP32: Tolerance(rtol=1e9, atol=1e9, stage_relative_l2=1e9)}
    found = _against(task, model_from_state(tiny_architecture, Form.TRAINING, tiny_state), tolerances=loose)
    assert found.status is Status.FAILED
    assert found.outputs[0].deviation.finite is False
    assert found.outputs[0].deviation.max_abs is None
    assert found.first_bad_block == (None if key.startswith("head") else "backbone.network.4.0")


def test_swapped_classes_fail_and_the_flips_are_counted(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State
) -> None:
    for key in ("head.fc.weight", "head.fc.bias"):
        tiny_state[key] = tiny_state[key].roll(1, 0)
    found = _against(task, model_from_state(tiny_architecture, Form.TRAINING, tiny_state))
    decisions = found.outputs[0].decisions
    assert decisions is not None
    assert found.status is Status.FAILED
    assert decisions.decided_flips == decisions.flips == decisions.images == sum(BATCHES)
    assert decisions.top1_agreement == 0


def test_a_loosened_tolerance_passes_what_the_default_fails_and_says_whose_it_is(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State
) -> None:
    tiny_state["backbone.network.4.0.mlp.fc1.weight"].reshape(-1)[0] += 1e-2
    model = model_from_state(tiny_architecture, Form.TRAINING, tiny_state)
    assert _against(task, model).tolerance.stated == "default"
    loose = TOLERANCES[Precision.FP32].with_changes(rtol=0.1, atol=0.1, stage_relative_l2=0.1)
    found = _against(task, model, tolerances={Precision.FP32: loose})
    assert found.status is Status.PASSED
    assert (found.tolerance, found.tolerance.stated) == (loose, "user")


def test_one_bad_candidate_among_good_ones_fails_the_whole(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State
) -> None:
    broken = {key: value.clone() for key, value in tiny_state.items()}
    broken["head.fc.bias"][0] += 1
    bad = _candidate(model_from_state(tiny_architecture, Form.TRAINING, broken), "bad")
    skipped = [Skipped(config=labelled("engine"), reason="no GPU")]
    result = verify_parity(replace(task, candidates=[*task.candidates, bad], skipped=skipped))
    assert [item.status for item in result.candidates] == [Status.PASSED, Status.FAILED]
    assert result.status is Status.FAILED
    assert result.skipped == tuple(skipped)


def test_nothing_compared_is_nothing_proven(task: ParityTask) -> None:
    assert verify_parity(replace(task, candidates=[])).status is Status.FAILED


def test_a_reference_that_overflows_proves_nothing(
    task: ParityTask, tiny_architecture: Architecture, tiny_state: State
) -> None:
    huge = {key: torch.full_like(value, 1e38).double() for key, value in tiny_state.items()}
    reference = _candidate(model_from_state(tiny_architecture, Form.TRAINING, huge), "the huge one")
    with pytest.raises(RuntimeFailureError, match=r"the huge one\) overflows") as caught:
        verify_parity(replace(task, reference=reference))
    assert "logits" in caught.value.details


@dataclass
class Canned(Runtime):
    """Gives the same answer to everything, noisier by the given factor at each block."""

    noise: dict[str, float]
    classes: int = 4
    log: list[str] = field(default_factory=list)

    def run(self, images: Images) -> Outputs:
        self.log.append(f"run {len(images)}")
        return {"logits": np.tile(np.arange(float(self.classes)), (len(images), 1))}

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        self.log.append(f"tap {len(images)}")
        shape = (len(images), 2, 3, 3)
        return {name: np.full(shape, 1 + self.noise.get(name, 0.0)) for name in tensors}

    def close(self) -> None:
        self.log.append("close")


def _canned(name: str, runtime: Canned) -> Candidate:
    return Candidate(config=labelled(name), artifact_sha256="cd", open=lambda: runtime)


BLOCKS = tuple((f"backbone.network.{i}.0", f"backbone.network.{i}.1") for i in (0, 2, 4, 6))


@pytest.mark.parametrize(
    ("noise", "bad"),
    [
        ({"0.0": 1.2e-5, "0.1": 0.9e-5, "2.0": 1.1e-5, "2.1": 1.5e-5}, "0.0"),
        ({"2.0": 0.9e-5, "2.1": 1.1e-5, "4.0": 1.0, "4.1": 1.0}, "2.1"),
        ({"2.0": 1.1e-5, "2.1": 0.9e-5, "6.1": 1.1e-5}, "2.0"),
    ],
    ids=["early, smaller at its stage's end", "within a stage", "far before the stage that fails"],
)
def test_the_first_block_that_is_out_is_named_even_where_its_stage_ends_within_the_tolerance(
    task: ParityTask, noise: dict[str, float], bad: str
) -> None:
    full = {f"backbone.network.{name}": value for name, value in noise.items()}
    task = replace(task, reference=_canned("reference", Canned({})), blocks=BLOCKS)
    result = verify_parity(replace(task, candidates=[_canned("candidate", Canned(full))]))
    assert result.candidates[0].status is Status.FAILED
    assert result.candidates[0].first_bad_block == f"backbone.network.{bad}"


def test_every_runtime_is_run_in_the_batches_that_are_stated_and_closed(task: ParityTask) -> None:
    reference, candidate = Canned({}), Canned({})
    task = replace(task, reference=_canned("reference", reference), blocks=BLOCKS)
    verify_parity(replace(task, candidates=[_canned("candidate", candidate)]))
    assert candidate.log == [*(f"run {batch}" for batch in BATCHES), f"tap {BATCHES[0]}", "close"]
    assert reference.log[-1] == "close"


def test_outputs_of_another_shape_are_a_runtime_failure_and_close_the_candidate(task: ParityTask) -> None:
    candidate = Canned({}, classes=5)
    task = replace(task, reference=_canned("reference", Canned({})), blocks=BLOCKS)
    with pytest.raises(RuntimeFailureError):
        verify_parity(replace(task, candidates=[_canned("candidate", candidate)]))
    assert candidate.log[-1] == "close"


@dataclass
class Late(Canned):
    """Wrong in a block from the given image on."""

    first: int = 0

    def tap(self, images: Images, tensors: Sequence[str]) -> Outputs:
        clean = Canned({}).tap(images, tensors)
        self.log.append(f"tap {len(images)} {len(tensors)}")
        for name in tensors:
            clean[name][self.first :] += self.noise.get(name, 0.0)
        return clean


@pytest.mark.parametrize(("first", "status"), [(1, Status.FAILED), (2, Status.PASSED)])
def test_stages_are_compared_on_the_first_two_images(task: ParityTask, first: int, status: Status) -> None:
    candidate = Late({"backbone.network.2.1": 1.0}, first=first)
    reference = Canned({})
    inputs = replace(task.inputs, batches=(6,))
    task = replace(task, reference=_canned("reference", reference), blocks=BLOCKS, inputs=inputs)
    result = verify_parity(replace(task, candidates=[_canned("candidate", candidate)]))
    assert result.candidates[0].status is status
    assert {line for line in reference.log if line.startswith("tap")} == {"tap 2"}


def test_looking_for_the_bad_block_goes_stage_by_stage_and_ends_there(task: ParityTask) -> None:
    candidate = Late({"backbone.network.2.1": 1.0})
    task = replace(task, reference=_canned("reference", Canned({})), blocks=BLOCKS)
    result = verify_parity(replace(task, candidates=[_canned("candidate", candidate)]))
    assert result.candidates[0].first_bad_block == "backbone.network.2.1"
    taps = [line for line in candidate.log if line.startswith("tap")]
    assert taps == ["tap 2 4", "tap 2 2", "tap 2 2"]  # the stages' ends, then stages 1 and 2
