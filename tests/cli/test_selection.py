from __future__ import annotations

import pytest
import typer
from riformer_deploy_cli import selection
from riformer_deploy_cli.options import RunnerChoice

from riformer_deploy.common.enums import Group, Precision


@pytest.mark.parametrize(
    ("asked", "groups"),
    [
        ("", (Group.TORCH, Group.ONNX, Group.OPENVINO, Group.GPU, Group.ENGINE)),
        ("compiled", tuple(Group)),
        ("torch", (Group.TORCH,)),
        ("onnx compiled", (Group.ONNX,)),
        ("engine onnx torch compiled", (Group.TORCH, Group.COMPILED, Group.ONNX, Group.GPU, Group.ENGINE)),
        ("engine", (Group.GPU, Group.ENGINE)),
        ("openvino", (Group.OPENVINO,)),
    ],
)
def test_a_command_line_chooses_groups_and_none_named_means_all(
    asked: str, groups: tuple[Group, ...]
) -> None:
    assert (
        selection.chosen_groups(
            [RunnerChoice(word) for word in asked.split() if word != "compiled"], compiled="compiled" in asked
        )
        == groups
    )


def test_a_list_may_have_commas_and_be_repeated_and_holds_each_value_once() -> None:
    assert selection.chosen_precisions(["fp16, int8", "fp16"]) == (Precision.FP16, Precision.INT8)
    assert selection.chosen_batches(["1,8", "4"]) == (1, 8, 4)
    assert selection.chosen_runners(None) == ()


@pytest.mark.parametrize("text", ["fp31", "fp32,,fp16", ""])
def test_a_value_of_a_list_that_is_wrong_is_named_with_what_there_is(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not one of 'fp32', 'fp16', 'bf16', 'int8', 'fp8'"):
        selection.chosen_precisions([text])
