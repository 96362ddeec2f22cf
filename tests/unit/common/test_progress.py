from __future__ import annotations

from riformer_deploy.common.progress import Step, within


def test_steps_of_a_part_are_steps_of_the_whole_and_keep_how_far_they_are() -> None:
    said: list[str] = []
    progress = within("proving parity", said.append)
    progress("the reference")
    progress(Step("ONNX Runtime", "1 of 2", done=0, total=2, series="parity"))
    assert said == ["proving parity: the reference", "proving parity: ONNX Runtime, 1 of 2"]
    step = said[1]
    assert isinstance(step, Step)
    assert (step.work, step.part, step.done, step.total, step.series) == (
        "proving parity: ONNX Runtime",
        "1 of 2",
        0,
        2,
        "parity",
    )
